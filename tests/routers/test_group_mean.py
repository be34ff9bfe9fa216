"""Group mean against a worked case, and against best single at its limit."""

from __future__ import annotations

import numpy as np

from tests.routers.tables import assert_same, dense_table, holed_table, plain_means, real_table
from turnout.core.query import Query
from turnout.routers import GroupMeanRouter

NAN = np.nan


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


def test_group_mean_with_an_infinite_prior_is_the_mean() -> None:
    table = holed_table()
    plain = plain_means(table, len(table.queries))
    assert_same(GroupMeanRouter(prior=np.inf).fit(table).estimate(table.queries), plain)


def test_less_evidence_means_more_spread() -> None:
    quality_QM = np.tile([[1.0], [0.0]], (20, 1))
    table = dense_table(quality_QM, [f"t{i}" for i in range(40)], tasks=["many"] * 36 + ["few"] * 4)
    estimate = GroupMeanRouter(prior=1.0).fit(table).estimate([table.queries[0], table.queries[-1]])
    assert estimate.spread_QM[1, 0] > 2 * estimate.spread_QM[0, 0]
