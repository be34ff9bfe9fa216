"""No spread is narrower than the outcomes behind it allow, near the query and far from it."""

from __future__ import annotations

import inspect
from functools import cache

import numpy as np
import pytest

from tests.routers.tables import dense_table, router_names, worded_queries, worded_table
from turnout.core import Candidate, OutcomeTable
from turnout.core.contracts import Router
from turnout.features import TextEmbedder
from turnout.routers import registry
from turnout.routers.evidence import (
    LEAST_BETWEEN,
    evidence_by,
    evidence_from,
    floor_square,
    learn_evidence,
)

RNG = np.random.default_rng(0)
GOOD_AT = {"maths": (0.9, 0.3, 0.5), "code": (0.3, 0.9, 0.5), "story": (0.5, 0.5, 0.9)}
BLIND = {"best_single", "uniform"}
"""They read neither text nor task, so that no query is far from any other."""


@cache
def planted() -> OutcomeTable:
    """Return a table of three tasks on which the candidates differ."""
    queries = worded_queries(120, seed=3)
    chance_QM = np.array([GOOD_AT[query.task or ""] for query in queries])
    return worded_table(
        (np.random.default_rng(0).random(chance_QM.shape) < chance_QM).astype(float),
        seed=3,
        cost_usd=np.full(chance_QM.shape, 1e-3),
    )


def probe_of_maths(num: int, quality: np.ndarray) -> OutcomeTable:
    queries = [query for query in worded_queries(3 * num, seed=9) if query.task == "maths"]
    made = dense_table(
        quality[:, None], [query.words for query in queries], tasks=[query.task for query in queries],
        cost_usd=np.full((num, 1), 1e-3),
    )  # fmt: skip
    return OutcomeTable(
        queries=made.queries, candidates=[Candidate(model="newcomer")], query_index=made.query_index,
        candidate_index=made.candidate_index, quality=made.quality, cost_usd=made.cost_usd,
    )  # fmt: skip


@cache
def fitted(name: str) -> Router:
    cls = registry.get(name)
    takes = "embedder" in inspect.signature(cls).parameters
    embedder = TextEmbedder(num_features=16).fit(planted().queries)
    router: Router = cls(embedder=embedder) if takes else cls()
    return router.fit(planted())


@pytest.mark.parametrize("name", [name for name in router_names() if name not in BLIND])
def test_a_newcomer_probed_on_one_topic_is_unsure_of_the_others(name: str) -> None:
    router = registry.get(name)(**fitted(name).config())
    router.restore(fitted(name).state())
    probe = probe_of_maths(50, np.ones(50))
    router.add_candidate(probe.candidates[0], probe)
    asked = worded_queries(60, seed=77)
    spread_Q = router.estimate(asked).spread_QM[:, -1]
    is_maths_Q = np.array([query.task == "maths" for query in asked])
    assert spread_Q[~is_maths_Q].mean() > 1.3 * spread_Q[is_maths_Q].mean()
    assert spread_Q[~is_maths_Q].min() > 0.09


def test_the_floor_is_the_error_of_the_average_and_of_its_place() -> None:
    share_NK = np.eye(2)[[0, 0, 0, 1]]
    quality_NM = np.array([[1.0], [0.0], [1.0], [1.0]])
    found = evidence_by(share_NK, quality_NM)
    variance = np.var([1, 0, 1, 1, 0, 1])
    here, there = (variance / 4 + 1 / (1 / found.between + num / variance) for num in (3, 1))
    narrow_QM = np.zeros((3, 1))
    wide_QM = found.widen_by(narrow_QM, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    anywhere = 0.75 * here + 0.25 * there
    np.testing.assert_allclose(wide_QM[:, 0], np.sqrt([here, there, anywhere]))
    assert found.widen_by(np.full((1, 1), 0.45), np.array([[1.0, 0.0]]))[0, 0] == 0.45
    assert found.widen_by(np.full((1, 1), 3.0), np.array([[1.0, 0.0]]))[0, 0] == 0.5


def test_places_that_differ_widen_what_is_unknown_of_them() -> None:
    share_NK = np.eye(2)[np.arange(200) % 2]
    alike, apart = (
        evidence_by(share_NK, (RNG.random((200, 2)) < chance_N1).astype(float)).between
        for chance_N1 in (np.full((200, 1), 0.5), np.where(np.arange(200) % 2, 0.9, 0.1)[:, None])
    )
    assert alike == LEAST_BETWEEN
    assert apart > 0.2


def test_more_outcomes_near_the_query_narrow_the_floor() -> None:
    floors = floor_square(np.full(1, 0.2), np.full(1, 100.0), np.array([[0.0], [1.0], [10.0], [1e6]]), 0.04)
    assert (np.diff(floors[:, 0]) < 0).all()
    assert floors[0, 0] == pytest.approx(0.002 + 0.04)
    assert floors[-1, 0] == pytest.approx(0.002, rel=1e-3)
    assert np.isposinf(floor_square(np.full(1, np.nan), np.zeros(1), np.zeros((1, 1)), 0.04)).all()


def test_evidence_survives_its_arrays_and_grows_by_a_column() -> None:
    x_NF = RNG.normal(size=(60, 4)).astype(np.float32)
    quality_NM = RNG.random((60, 3))
    learned = learn_evidence(x_NF, quality_NM)
    grown = learned.with_texts(x_NF[:10], np.ones((10, 1)))
    again = evidence_from(grown.arrays())
    assert again is not None
    spread_QM = np.zeros((60, 4))
    np.testing.assert_array_equal(again.widen(spread_QM, x_NF), grown.widen(spread_QM, x_NF))
    np.testing.assert_array_equal(grown.widen(spread_QM, x_NF)[:, :3], learned.widen(spread_QM[:, :3], x_NF))
    assert evidence_from({"other": x_NF}) is None


def test_a_place_from_which_a_candidate_was_kept_is_unknown_and_holes_at_random_are_not() -> None:
    share_K, total = np.array([0.25, 0.75]), 100.0
    num_KM = np.array([[100.0, 25.0, 20.0], [0.0, 75.0, 80.0]])
    floors = floor_square(np.full(3, 0.2), np.full(3, total), num_KM, 0.01, share_K)
    plain = floor_square(np.full(3, 0.2), np.full(3, total), num_KM, 0.01)
    # Seventy-five outcomes were to be expected.
    assert floors[1, 0] == pytest.approx(0.002 + (1 - 1 / 76) ** 2 / 12)
    np.testing.assert_array_equal(floors[:, 1:], plain[:, 1:])
    assert floors[0, 0] == plain[0, 0]
