"""Uniform, best single and group mean against worked cases, and against each other at their limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import assert_same, dense_table, holed_table, real_table
from turnout.core.errors import TableError
from turnout.core.query import Query
from turnout.routers import BestSingleRouter, GroupMeanRouter, UniformRouter

NAN = np.nan


def test_best_single_gives_means_and_their_standard_errors() -> None:
    quality_QM = np.array([[1.0, 0.0], [0.0, 0.5], [1.0, NAN], [1.0, NAN]])
    cost_QM = np.array([[1.0, NAN], [2.0, 4.0], [3.0, NAN], [NAN, NAN]])
    table = dense_table(quality_QM, list("abcd"), cost_usd=cost_QM, latency_s=quality_QM * 2)
    estimate = BestSingleRouter().fit(table).estimate(table.queries[:2])
    np.testing.assert_allclose(estimate.quality_QM, [[0.75, 0.25]] * 2)
    errors = [np.std([1, 0, 1, 1], ddof=1) / 2, np.std([0, 0.5], ddof=1) / np.sqrt(2)]
    np.testing.assert_allclose(estimate.spread_QM, [errors] * 2)
    np.testing.assert_allclose(estimate.cost_usd_QM, [[2.0, 4.0]] * 2)
    np.testing.assert_allclose(estimate.latency_s_QM, [[1.5, 0.5]] * 2)


def test_one_observation_is_no_certainty() -> None:
    table = dense_table(np.array([[1.0]]), ["a"])
    assert BestSingleRouter().fit(table).estimate(table.queries).spread_QM[0, 0] == 0.5


def test_uniform_cannot_tell_candidates_apart_but_knows_what_they_cost() -> None:
    table = real_table()
    estimate = UniformRouter().fit(table).estimate(table.queries[:3])
    assert np.unique(estimate.quality_QM).size == 1
    assert estimate.quality_QM[0, 0] == pytest.approx(table.quality_QM.mean())
    np.testing.assert_allclose(estimate.spread_QM, table.quality_QM.mean(axis=0).std())
    np.testing.assert_allclose(estimate.cost_usd_QM[0], table.cost_usd_QM.mean(axis=0))


def test_group_mean_is_the_shrunk_mean_of_the_task() -> None:
    quality_QM = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, NAN]])
    table = dense_table(quality_QM, list("abcd"), tasks=["x", "x", "y", "y"])
    queries = [
        Query(id="1", text="?", task="x"),
        Query(id="2", text="?", task="y"),
        Query(id="3", text="?", task="new"),
        Query(id="4", text="?"),
    ]
    estimate = GroupMeanRouter(prior=2.0).fit(table).estimate(queries)
    overall = np.array([0.5, 1 / 3])
    expected = [
        (2 * np.array([1.0, 0.0]) + 2 * overall) / 4,
        [(2 * 0.0 + 2 * 0.5) / 4, (1 * 1.0 + 2 / 3) / 3],
        overall,
        overall,
    ]
    np.testing.assert_allclose(estimate.quality_QM, expected)


def test_group_mean_without_a_prior_is_the_mean_of_the_task() -> None:
    table = real_table()
    estimate = GroupMeanRouter(prior=0.0).fit(table).estimate(table.queries)
    for task in set(table.tasks):
        rows = np.array([name == task for name in table.tasks])
        np.testing.assert_allclose(
            estimate.quality_QM[rows][0], table.quality_QM[rows].mean(axis=0), atol=1e-12
        )


def test_group_mean_with_an_infinite_prior_is_best_single() -> None:
    table = holed_table()
    single = BestSingleRouter().fit(table).estimate(table.queries)
    assert_same(GroupMeanRouter(prior=np.inf).fit(table).estimate(table.queries), single)


def test_less_evidence_means_more_spread() -> None:
    quality_QM = np.tile([[1.0], [0.0]], (20, 1))
    table = dense_table(quality_QM, [f"t{i}" for i in range(40)], tasks=["many"] * 36 + ["few"] * 4)
    estimate = GroupMeanRouter(prior=1.0).fit(table).estimate([table.queries[0], table.queries[-1]])
    assert estimate.spread_QM[1, 0] > 2 * estimate.spread_QM[0, 0]


def test_a_table_without_outcomes_is_refused() -> None:
    with pytest.raises(TableError, match="holds no outcome"):
        BestSingleRouter().fit(dense_table(np.array([[NAN]]), ["a"]))
