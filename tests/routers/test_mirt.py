"""Item response: discriminations above 0, logits of low rank, abilities that are recovered and ordered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries
from turnout.core import Candidate, OutcomeTable
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.outcomes import Floats
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, MIRTRouter, RidgeRouter
from turnout.routers.adam import Real
from turnout.routers.item_response import item_loss, softplus

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


def logits(router: Router, table: OutcomeTable) -> Floats:
    p_QM = np.clip(router.fit(table).estimate(table.queries).quality_QM, 1e-9, 1 - 1e-9)
    return np.log(p_QM / (1.0 - p_QM))


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_logits_have_the_rank_of_the_model(num_dims: int) -> None:
    logit_QM = logits(MIRTRouter(embedder=EMBEDDER, num_dims=num_dims), real_table())
    # A column for the difficulty, one per dimension; nine candidates could fill nine.
    values = np.linalg.svd(logit_QM, compute_uv=False)
    assert (values > 1e-5 * values[0]).sum() <= num_dims + 1
    for other in (KNNRouter(embedder=EMBEDDER), RidgeRouter(embedder=EMBEDDER)):
        values = np.linalg.svd(logits(other, real_table()), compute_uv=False)
        assert (values > 1e-5 * values[0]).sum() == 9


def test_the_abler_in_every_dimension_is_better_on_every_query() -> None:
    router = MIRTRouter(embedder=EMBEDDER, num_dims=3).fit(real_table())
    a_QD, _ = router.items(real_table().queries)
    assert (a_QD > 0).all()
    assert router.placement_ is not None
    abilities = router.placement_.vectors
    weaker = replace(abilities, mean_MD=abilities.mean_MD - np.array([0.3, 0.05, 0.6]))
    before_QM = router.estimate(real_table().queries).quality_QM
    router.placement_ = replace(router.placement_, vectors=weaker)
    assert (router.estimate(real_table().queries).quality_QM < before_QM).all()


def planted(num: int, ability_MD: Floats, seed: int) -> OutcomeTable:
    """Return draws of a two-dimensional test: maths asks one ability, stories the other, code both."""
    queries = worded_queries(num, seed=seed)
    a_QD = np.array([[2.0, 0.2], [1.2, 1.2], [0.2, 2.0]])[np.arange(num) % 3]
    p_QM = 1.0 / (1.0 + np.exp(-(a_QD @ ability_MD.T)))
    drawn_QM = (np.random.default_rng(seed).random(p_QM.shape) < p_QM).astype(np.float64)
    return dense_table(drawn_QM, [q.words for q in queries], tasks=[q.task for q in queries])


def test_planted_items_and_abilities_are_recovered() -> None:
    rng = np.random.default_rng(0)
    ability_MD = rng.normal(size=(12, 2))
    router = MIRTRouter(num_dims=2).fit(planted(450, ability_MD, seed=3))
    asked = worded_queries(60, seed=9)
    found_QM = router.estimate(asked).quality_QM
    order = [int(name[1:]) for name in router.estimate(asked).names]
    a_QD = np.array([[2.0, 0.2], [1.2, 1.2], [0.2, 2.0]])[np.arange(60) % 3]
    truth_QM = 1.0 / (1.0 + np.exp(-(a_QD @ ability_MD[order].T)))
    assert np.sqrt(np.mean((found_QM - truth_QM) ** 2)) < 0.08


def test_a_newcomer_is_scored_from_few_probes_better_than_by_its_own_regression() -> None:
    rng = np.random.default_rng(1)
    ability_MD = rng.normal(size=(13, 2)) * 1.5
    asked = worded_queries(60, seed=9)
    a_QD = np.array([[2.0, 0.2], [1.2, 1.2], [0.2, 2.0]])[np.arange(60) % 3]

    def error(router: Router) -> float:
        total = 0.0
        table = planted(450, ability_MD[:12], seed=3)
        router.fit(table)
        for seed in range(6):
            new_D = np.random.default_rng(seed).normal(size=2) * 1.5
            probe = planted(18, new_D[None], seed=20 + seed)
            named = OutcomeTable(
                queries=probe.queries, candidates=[Candidate(model=f"new{seed}")],
                query_index=probe.query_index, candidate_index=probe.candidate_index, quality=probe.quality,
            )  # fmt: skip
            router.add_candidate(named.candidates[0], named)
            truth_Q = 1.0 / (1.0 + np.exp(-(a_QD @ new_D)))
            total += float(np.mean((router.estimate(asked).quality_QM[:, -1] - truth_Q) ** 2))
        return total

    assert error(MIRTRouter(num_dims=2)) < 0.75 * min(error(KNNRouter()), error(RidgeRouter()))


def test_a_newcomer_with_the_outcomes_of_an_old_candidate_gets_its_estimates() -> None:
    table = real_table()
    router = MIRTRouter(embedder=EMBEDDER).fit(table)
    alone = table.select(candidates=[table.candidates[3].name])
    twin = OutcomeTable(
        queries=alone.queries, candidates=[Candidate(model="twin")], query_index=alone.query_index,
        candidate_index=alone.candidate_index, quality=alone.quality,
    )  # fmt: skip
    router.add_candidate(twin.candidates[0], twin)
    estimate = router.estimate(table.queries)
    np.testing.assert_allclose(estimate.quality_QM[:, -1], estimate.quality_QM[:, 3], rtol=1e-6)
    np.testing.assert_allclose(estimate.spread_QM[:, -1], estimate.spread_QM[:, 3], rtol=1e-6)


def test_a_newcomer_beside_a_lone_candidate_moves_it_by_no_bit() -> None:
    table = real_table()
    lone, late = (table.select(candidates=[name]) for name in table.names[:2])
    router = MIRTRouter(embedder=TextEmbedder()).fit(lone)
    before = router.estimate(table.queries)
    after = router.add_candidate(late.candidates[0], late).estimate(table.queries)
    assert np.array_equal(before.quality_QM[:, 0], after.quality_QM[:, 0])
    assert np.array_equal(before.spread_QM[:, 0], after.spread_QM[:, 0])


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    x_NF: Real = rng.normal(size=(7, 4))
    truth_NM, known_NM = rng.random((7, 3)), (rng.random((7, 3)) < 0.7).astype(np.float64)
    point = {
        "slope_FD": rng.normal(size=(4, 2)), "slope_D": rng.normal(size=2), "hard_F": rng.normal(size=4),
        "hard": rng.normal(size=1), "ability_MD": rng.normal(size=(3, 2)),
    }  # fmt: skip
    _, gradient = item_loss(point, x_NF, truth_NM, known_NM, 0.3)
    for name, slope in gradient.items():
        step = rng.normal(size=slope.shape)
        losses = [
            item_loss({**point, name: point[name] + sign * 1e-5 * step}, x_NF, truth_NM, known_NM, 0.3)[0]
            for sign in (1, -1)
        ]
        np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, (slope * step).sum(), rtol=1e-5)
    assert softplus(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, np.log(2.0), 800.0]


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"MIRTRouter\.num_dims"):
        MIRTRouter(num_dims=0)
    with pytest.raises(InputError, match=r"MIRTRouter\.prior"):
        MIRTRouter(prior=0.0)
