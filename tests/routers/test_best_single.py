"""Best single gives means with honest errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import assert_same, dense_table, plain_means, real_table
from turnout.core.errors import TableError
from turnout.routers import BestSingleRouter

NAN = np.nan


def test_best_single_gives_means_and_their_standard_errors() -> None:
    quality_QM = np.array([[1.0, 0.0], [0.0, 0.5], [1.0, 0.0], [1.0, 0.5]])
    cost_QM = np.array([[1.0, NAN], [2.0, 4.0], [3.0, NAN], [NAN, NAN]])
    table = dense_table(quality_QM, list("abcd"), cost_usd=cost_QM, latency_s=quality_QM * 2)
    estimate = BestSingleRouter().fit(table).estimate(table.queries[:2])
    np.testing.assert_allclose(estimate.quality_QM, [[0.75, 0.25]] * 2)
    # A best and a worst outcome are counted in.
    errors = [np.std([1, 0, 1, 1, 0, 1]) / 2, np.std([0, 0.5, 0, 0.5, 0, 1]) / 2]
    np.testing.assert_allclose(estimate.spread_QM, [errors] * 2)
    np.testing.assert_allclose(estimate.cost_usd_QM, [[2.0, 4.0]] * 2)
    np.testing.assert_allclose(estimate.latency_s_QM, [[1.5, 0.5]] * 2)


def test_whoever_met_the_easy_queries_does_not_lead_for_that() -> None:
    rng = np.random.default_rng(0)
    level_Q1, value_M = 0.6 * rng.random((300, 1)), np.array([0.3, 0.2, 0.1, 0.0])
    met_QM = rng.random((300, 4)) < np.where(level_Q1 > 0.3, [[0.2, 0.5, 0.5, 0.9]], [[0.9, 0.5, 0.5, 0.1]])
    truth_QM = level_Q1 + value_M
    table = dense_table(np.where(met_QM, truth_QM, NAN), [f"text {i}" for i in range(300)])
    assert np.nanmean(table.quality_QM, axis=0).argsort().tolist() != [3, 2, 1, 0]
    found_M = BestSingleRouter().fit(table).estimate(table.queries[:1]).quality_QM[0]
    assert found_M.argsort().tolist() == [3, 2, 1, 0]
    np.testing.assert_allclose(found_M, truth_QM.mean(axis=0), atol=0.02)


def test_of_means_over_few_outcomes_luck_is_taken_and_said_in_the_spread() -> None:
    rng = np.random.default_rng(0)
    chance_M = 0.6 + 0.03 * rng.standard_normal(200)
    seen_QM = rng.random((200, 200)) < rng.uniform(0.05, 0.4, 200)
    table = dense_table(
        np.where(seen_QM, (rng.random((200, 200)) < chance_M).astype(float), NAN),
        [f"text {i}" for i in range(200)],
    )
    router = BestSingleRouter().fit(table)
    found = router.estimate(table.queries[:1])
    quality_M, spread_M = found.quality_QM[0], found.spread_QM[0]
    lead = int(quality_M.argmax())
    assert np.nanmean(table.quality_QM, axis=0).max() > chance_M.max() + 0.1
    assert abs(quality_M[lead] - chance_M[lead]) < 0.08
    assert (np.abs(quality_M - chance_M) < 2.0 * spread_M).mean() > 0.95
    before = found.quality_QM.copy()
    probe = dense_table(np.ones((9, 201)), list("abcdefghi")).select(candidates=["m200"])
    after = router.add_candidate(probe.candidates[0], probe).estimate(table.queries[:1]).quality_QM
    np.testing.assert_array_equal(after[:, :-1], before)
    assert after[0, -1] == 1.0


def test_a_dense_table_keeps_its_plain_means_to_the_last_bit() -> None:
    table = real_table()
    found = BestSingleRouter().fit(table).estimate(table.queries[:3])
    assert_same(found, plain_means(table, 3), rtol=0, atol=0)


def test_one_observation_is_no_certainty() -> None:
    spreads = []
    for num in (1, 2, 3, 5, 50):
        table = dense_table(np.ones((num, 1)), [f"text {i}" for i in range(num)])
        spreads.append(float(BestSingleRouter().fit(table).estimate(table.queries).spread_QM[0, 0]))
    assert spreads[0] == pytest.approx(np.std([1, 0, 1]))
    assert spreads == sorted(spreads, reverse=True)
    # That of Laplace's rule: n right answers of n leave a chance of about 1 / n of a wrong one.
    assert 0.01 < spreads[-1] < 0.03


def test_a_table_without_outcomes_is_refused() -> None:
    with pytest.raises(TableError, match="holds no outcome"):
        BestSingleRouter().fit(dense_table(np.array([[NAN]]), ["a"]))
