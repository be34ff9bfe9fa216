"""Lookahead: answers are foreseen per candidate, they teach where grades are few, and missing ones do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.routers.tables import shuffled, worded_queries
from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import LookaheadRouter
from turnout.routers.neural.answers import read_answers
from turnout.routers.neural.lookahead_net import LookaheadNet, start

WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "mi", "tu", "ze") for b in ("lar", "nim", "pod", "vek", "sul", "gro")
]
"""A query asks about one of thirty things."""
STYLES = ("gladly here is the full answer", "sorry this cannot be answered", "as an example consider this")


def told_table(num: int, *, graded: float, seed: int = 0) -> tuple[OutcomeTable, np.ndarray]:
    """Return a table with answers and a few grades, and the chance of each grade, shape (Q, 2).

    Each candidate answers a thing in a style of its own choice, and the style decides the chance of a grade.
    """
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    style_WM = fixed.integers(0, 3, (len(WORDS), 2))
    word_Q = np.arange(num) % len(WORDS)
    chance_QM = np.array([0.9, 0.1, 0.5])[style_WM[word_Q]]
    quality_QM = (rng.random((num, 2)) < chance_QM).astype(np.float64)
    quality_QM[rng.random((num, 2)) > graded] = np.nan
    told = [f"{STYLES[style_WM[w, m]]} {rng.integers(9)}" for w in word_Q for m in range(2)]
    table = OutcomeTable(
        queries=[
            Query(id=f"{seed}.{q}", text=f"tell {WORDS[w]} now {WORDS[w]}") for q, w in enumerate(word_Q)
        ],
        candidates=[Candidate(model="ant"), Candidate(model="owl")],
        query_index=np.repeat(np.arange(num), 2),
        candidate_index=np.tile([0, 1], num),
        quality=quality_QM.ravel(),
        extras={"response": told},
    )
    return table, chance_QM


EMBEDDER = TextEmbedder(num_features=48).fit(told_table(300, graded=1.0)[0].queries)


def without_answers(table: OutcomeTable) -> OutcomeTable:
    return OutcomeTable(
        queries=table.queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality,
    )  # fmt: skip


def test_the_network_is_what_its_docstring_says() -> None:
    rng = np.random.default_rng(0)
    arrays = start(5, np.array([0.3, 0.8]), (7, 4, 3), rng)
    net = LookaheadNet(arrays)
    x_BF = rng.normal(size=(6, 5))
    quality_BM, answer_BMR = rng.random((6, 2)), rng.normal(size=(6, 2, 3))
    quality_BM[0, 1], answer_BMR[3, 0] = np.nan, np.nan
    bits, away = [], []
    for b in range(6):
        h = np.maximum(x_BF[b] @ arrays["weight"] + arrays["bias"], 0.0)
        for m in range(2):
            z = np.maximum((h * arrays["gain"][m]) @ arrays["mix"] + arrays["offset"][m], 0.0)
            p = 1.0 / (1.0 + np.exp(-(z @ arrays["head"][m] + arrays["level"][m])))
            if np.isfinite(q := quality_BM[b, m]):
                bits.append(-q * np.log(p) - (1.0 - q) * np.log(1.0 - p))
            if np.isfinite(answer_BMR[b, m, 0]):
                away.append(np.square(z @ arrays["decode"] + arrays["decode_bias"] - answer_BMR[b, m]).sum())
    x, quality, answer = (torch.tensor(a, dtype=torch.float32) for a in (x_BF, quality_BM, answer_BMR))
    loss = net.loss(x, quality, answer, 0.3)
    assert float(loss.detach()) == pytest.approx(np.mean(bits) + 0.3 * np.mean(away), rel=1e-5)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_answer_of_each_candidate_is_foreseen() -> None:
    table, _ = told_table(600, graded=1.0)
    fresh, _ = told_table(90, graded=1.0, seed=1)
    answers = TextEmbedder(num_features=8).fit(
        [Query(id=str(i), text=f"{s} 1") for i, s in enumerate(STYLES)]
    )
    router = LookaheadRouter(embedder=EMBEDDER, answers=answers, answer_weight=1.0).fit(table)
    found_QMR = router.foresee(fresh.queries)
    truth_QMR = read_answers(fresh, fresh.queries, ("ant", "owl"), answers)
    assert truth_QMR is not None
    # The error of foreseeing the mean answer is 1.
    assert np.square(found_QMR - truth_QMR).sum(axis=2).mean() < 0.4
    # The other candidate's answers are not what was foreseen.
    assert np.square(found_QMR - truth_QMR[:, ::-1]).sum(axis=2).mean() > 0.8


def test_answers_teach_where_grades_are_few() -> None:
    chance_QM = told_table(300, graded=1.0)[1]
    errors = []
    for seed in (0, 1, 2):
        table, _ = told_table(600, graded=0.15, seed=seed)
        pair = []
        for shown in (table, without_answers(table)):
            router = LookaheadRouter(embedder=EMBEDDER, answer_weight=2.0, seed=seed).fit(shown)
            found_QM = router.estimate(told_table(300, graded=1.0)[0].queries).quality_QM
            pair.append(float(np.square(found_QM - chance_QM).mean()))
        errors.append(pair)
    told, untold = np.mean(errors, axis=0)
    assert told < 0.8 * untold


def test_answers_are_read_by_cell_and_missing_ones_are_unknown() -> None:
    table, _ = told_table(60, graded=1.0)
    responses: list[object] = list(table.extras["response"])
    responses[5] = None
    holed = OutcomeTable(
        queries=table.queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality, extras={"response": responses},
    )  # fmt: skip
    queries = list(table.queries)[::-1]
    found_QMR = read_answers(holed, queries, ("owl", "ant"), None)
    again_QMR = read_answers(holed, list(table.queries), ("ant", "owl"), None)
    assert found_QMR is not None
    assert again_QMR is not None
    np.testing.assert_allclose(found_QMR[::-1, ::-1], again_QMR, atol=1e-6)
    is_known_QM = np.asarray(np.isfinite(again_QMR).all(axis=2))
    assert not is_known_QM[2, 1]
    assert is_known_QM.sum() == 119
    assert np.square(again_QMR[is_known_QM]).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)
    assert read_answers(without_answers(table), queries, ("ant", "owl"), None) is None


def test_many_answers_are_thinned_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.routers.neural.answers._MAX_ANSWERS", 50)
    table, _ = told_table(60, graded=1.0)
    found_QMR = read_answers(table, list(table.queries), ("ant", "owl"), None)
    assert found_QMR is not None
    assert np.isfinite(found_QMR[:, :, 0]).sum() == 40


def test_the_order_of_a_table_with_answers_changes_nothing() -> None:
    table, _ = told_table(120, graded=0.5)
    order = np.random.default_rng(0).permutation(table.num_rows)
    mixed = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index[order],
        candidate_index=table.candidate_index[order],
        quality=table.quality[order],
        extras={"response": [table.extras["response"][row] for row in order]},
    )
    first, again = (LookaheadRouter(embedder=EMBEDDER).fit(t).estimate(table.queries) for t in (table, mixed))
    np.testing.assert_array_equal(first.quality_QM, again.quality_QM)
    plain = (
        LookaheadRouter(embedder=EMBEDDER).fit(shuffled(without_answers(table), 1)).estimate(table.queries)
    )
    assert (plain.reorder(first.names).quality_QM != first.quality_QM).any()


def test_a_newcomer_is_known_by_parameters_of_its_own() -> None:
    table, chance_QM = told_table(600, graded=1.0)
    router = LookaheadRouter(embedder=EMBEDDER).fit(table)
    twin = Candidate(model="twin")
    probe = OutcomeTable(
        queries=table.queries[:120],
        candidates=[twin],
        query_index=np.arange(120),
        candidate_index=np.zeros(120, np.int64),
        quality=table.quality_QM[:120, 0],
    )
    before = {name: array.copy() for name, array in router.net_.items()}
    found_QM = router.add_candidate(twin, probe).estimate(table.queries).quality_QM
    assert np.corrcoef(found_QM[:, 2], chance_QM[:, 0])[0, 1] > 0.4
    for name, array in before.items():
        np.testing.assert_array_equal(router.net_[name][: len(array)], array)
    asked = [replace(query, id=f"w{query.id}") for query in worded_queries(3)]
    assert router.foresee(asked).shape == (3, 3, router.net_["decode"].shape[1])


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"LookaheadRouter\.answer_weight"):
        LookaheadRouter(answer_weight=-0.1)
    with pytest.raises(InputError, match=r"LookaheadRouter\.answers"):
        LookaheadRouter(answers="text")  # type: ignore[arg-type]
