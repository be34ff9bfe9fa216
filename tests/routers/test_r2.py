"""(model, token budget) as candidates: curves over the budget, and budgets that lean on their model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.routers.tables import real_table, worded_table
from turnout.core import Candidate, OutcomeTable, PriceCard
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.outcomes import Floats
from turnout.datasets import load
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, R2Router, RidgeRouter
from turnout.routers.length_curve import learn_length_curve

MODELS = ("claude-3-5-sonnet-20240620", "gemma-2-9b-it")
BUDGETS = (64, 128, 256, None)


@cache
def capped_table() -> OutcomeTable:
    """Return recorded answers of two models, cut at budgets: a cut one is wrong, and costs what is left."""
    table = load("reason18").select(candidates=list(MODELS))
    table = table.where(np.arange(len(table.queries)) % 5 == 0)
    caps = np.array([np.inf if budget is None else budget for budget in BUDGETS])
    num = table.num_rows
    written = np.minimum(table.output_tokens, caps[:, None])
    is_whole = table.output_tokens <= caps[:, None]
    cards = [candidate.price_card or PriceCard(input_usd_per_mtok=1, output_usd_per_mtok=1)
             for candidate in table.candidates]  # fmt: skip
    card_N = [cards[column] for column in table.candidate_index]
    input_usd = np.array([card.input_usd_per_mtok for card in card_N]) * table.input_tokens / 1e6
    output_usd = np.array([card.output_usd_per_mtok for card in card_N]) * written / 1e6
    return OutcomeTable(
        queries=table.queries,
        candidates=[replace(c, max_output_tokens=budget) for budget in BUDGETS for c in table.candidates],
        query_index=np.tile(table.query_index, len(BUDGETS)),
        candidate_index=np.concatenate([table.candidate_index + 2 * i for i in range(len(BUDGETS))]),
        quality=(table.quality * is_whole).ravel(),
        cost_usd=(input_usd + output_usd).ravel(),
        input_tokens=np.tile(table.input_tokens, len(BUDGETS)),
        output_tokens=written.ravel(),
    ) if num else table  # fmt: skip


@cache
def embedder() -> TextEmbedder:
    return TextEmbedder(num_features=24).fit(capped_table().queries)


@cache
def fitted() -> R2Router:
    return R2Router(embedder=embedder()).fit(capped_table())


def test_expected_tokens_are_the_mean_of_what_a_budget_lets_through() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(4_000, 2))
    mu_N = 5.0 + x_NF[:, 0]
    tokens_N = np.exp(mu_N + rng.normal(0.0, 0.6, 4_000))
    curve = learn_length_curve(x_NF, tokens_N[:, None], (1.0,))
    budget_B = np.array([50.0, 150.0, 400.0, np.inf])
    asked_QF = np.array([[-1.0, 0.3], [0.5, -2.0]])
    found_QB = curve.expected_tokens(asked_QF, np.zeros(4, np.int64), budget_B)
    drawn_QK = np.exp(5.0 + asked_QF[:, :1] + rng.normal(0.0, 0.6, (2, 200_000)))
    truth_QB = np.minimum(drawn_QK[:, None], budget_B[:, None]).mean(axis=2)
    np.testing.assert_allclose(found_QB, truth_QB, rtol=0.05)
    assert (found_QB <= budget_B).all()


def test_what_a_budget_costs_follows_the_tokens_it_lets_through() -> None:
    table, router = capped_table(), fitted()
    asked = table.queries[:50]
    cost_QM = router.estimate(asked).cost_usd_QM
    for model in range(2):
        by_budget_QB = cost_QM[:, model::2]
        assert (np.diff(by_budget_QB, axis=1) > -1e-4 * by_budget_QB[:, 1:]).all()
        card = table.candidates[model].price_card
        assert card is not None
        written_QB = (by_budget_QB - by_budget_QB[:, :1]) / card.output_usd_per_mtok * 1e6 + 64.0
        # Never more than the cap, whatever the query; heads that know no caps would go above.
        assert (written_QB[:, :-1] <= np.array([64.0, 128.0, 256.0]) * 1.05).all()
    np.testing.assert_allclose(
        router.estimate(table.queries).cost_usd_QM.mean(axis=0), table.cost_usd_QM.mean(axis=0), rtol=0.1
    )
    loose = RidgeRouter(embedder=embedder()).fit(table).estimate(table.queries).cost_usd_QM
    assert (np.diff(loose[:, 0::2], axis=1) <= 0).any()


def planted(num: int, seed: int) -> tuple[OutcomeTable, Floats]:
    """Return draws of one model under four budgets, and the truth: three topics, and a step per budget."""
    truth_QM = np.array([0.15, 0.5, 0.85])[np.arange(num) % 3, None] + np.array([-0.1, 0.0, 0.08, 0.12])
    drawn_QM = (np.random.default_rng(seed).random(truth_QM.shape) < truth_QM).astype(np.float64)
    plain = worded_table(drawn_QM, seed=seed)
    candidates = [Candidate(model="m", max_output_tokens=budget) for budget in BUDGETS]
    return OutcomeTable(
        queries=plain.queries, candidates=candidates, query_index=plain.query_index,
        candidate_index=plain.candidate_index, quality=plain.quality,
    ), truth_QM  # fmt: skip


def test_a_new_budget_of_a_known_model_leans_on_the_model() -> None:
    def error(router: Router, seed: int) -> float:
        table, truth_QM = planted(300, seed)
        newcomer = table.candidates[1]
        router.fit(table.select(candidates=[name for name in table.names if name != newcomer.name]))
        router.add_candidate(newcomer, table.where(np.arange(300) < 12))
        return float(np.mean((router.estimate(table.queries).quality_QM[:, -1] - truth_QM[:, 1]) ** 2))

    # Twelve probes tell the others little about three topics.
    mine, by_knn, by_ridge = (
        np.mean([error(cls(), seed) for seed in range(5)]) for cls in (R2Router, KNNRouter, RidgeRouter)
    )
    assert mine < 0.6 * min(by_knn, by_ridge)


def test_a_budget_seen_on_few_rows_borrows_from_those_seen_on_many() -> None:
    def error(router: Router, seed: int) -> float:
        table, truth_QM = planted(300, seed)
        keep_N = (table.candidate_index != 2) | (table.query_index < 9)
        found_QM = router.fit(table.with_rows(keep_N)).estimate(table.queries).quality_QM
        return float(np.mean((found_QM - truth_QM)[:, 2] ** 2))

    mine, by_knn, by_ridge = (
        np.mean([error(cls(), seed) for seed in range(5)]) for cls in (R2Router, KNNRouter, RidgeRouter)
    )
    assert mine < 0.6 * min(by_knn, by_ridge)


def test_a_curve_goes_through_its_budgets_and_lies_between_them() -> None:
    table, router = capped_table(), fitted()
    asked = table.queries[:20]
    quality_QM = router.estimate(asked).quality_QM
    model = Candidate(model=MODELS[0])
    place = [table.names.index(replace(table.candidates[0], max_output_tokens=b).name) for b in BUDGETS]
    quality_QB, tokens_QB = router.curve(asked, model, [64.0, 128.0, 256.0, 150.0, 200.0, 1e9, 32.0])
    np.testing.assert_allclose(quality_QB[:, :3], quality_QM[:, place[:3]], atol=1e-9)
    low_Q, high_Q = np.sort(quality_QB[:, 1:3], axis=1).T
    for column in (3, 4):
        assert (quality_QB[:, column] >= low_Q - 1e-9).all()
        assert (quality_QB[:, column] <= high_Q + 1e-9).all()
    np.testing.assert_allclose(quality_QB[:, 5], quality_QM[:, place[3]], atol=1e-9)
    np.testing.assert_array_equal(quality_QB[:, 6], quality_QB[:, 0])
    assert (np.diff(tokens_QB[:, [6, 0, 1, 3, 4, 2, 5]], axis=1) >= 0).all()


def test_a_curve_without_recorded_tokens_is_refused() -> None:
    table = real_table()
    router = R2Router(embedder=embedder()).fit(table)
    with pytest.raises(InputError, match="output tokens"):
        router.curve(table.queries[:1], table.candidates[0], [100.0])
    with pytest.raises(InputError, match="nobody"):
        router.curve(table.queries[:1], Candidate(model="nobody"), [100.0])
    with pytest.raises(InputError, match=r"R2Router\.penalties"):
        R2Router(penalties=())
