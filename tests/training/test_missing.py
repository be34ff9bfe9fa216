"""Values in place of missing cells: right on average, narrower than shared queries, untouched where full."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import worded_queries
from turnout.core import Candidate, OutcomeTable
from turnout.core.estimate import Estimate, make_estimate
from turnout.training.missing import chances, doubly_robust, stand_in

NUM = 600


def drawn(seed: int, *, by_task: bool) -> tuple[OutcomeTable, Estimate, np.ndarray]:
    """Return a sparse table, a poor prediction for it, and the true mean of each candidate.

    Candidates are good at one kind of query in three; `by_task` runs them on it more often than on others.
    """
    rng = np.random.default_rng(seed)
    queries = worded_queries(NUM, seed=seed)
    is_own_QM = np.arange(NUM)[:, None] % 3 == np.arange(3)
    hard_Q1 = rng.random((NUM, 1)) < 0.3
    true_QM = np.where(is_own_QM, 0.9, 0.4) * ~hard_Q1
    quality_QM = (rng.random((NUM, 3)) < true_QM).astype(float)
    chance_QM = np.where(is_own_QM, 0.8, 0.2) if by_task else np.full((NUM, 3), 0.5)
    row, column = np.nonzero(rng.random((NUM, 3)) < chance_QM)
    candidates = [Candidate(model=f"m{j}") for j in range(3)]
    table = OutcomeTable(
        queries=queries,
        candidates=candidates,
        query_index=row,
        candidate_index=column,
        quality=quality_QM[row, column],
        cost_usd=np.where(column == 0, 2.0, 1.0),
    )
    guess_QM = np.full((NUM, 3), 0.5)
    return table, make_estimate(candidates, guess_QM, cost_usd_QM=guess_QM + 1.0), true_QM.mean(axis=0)


def test_means_are_right_where_candidates_ran_on_what_they_are_good_at() -> None:
    off, naive = [], []
    for seed in range(20):
        table, estimate, true_M = drawn(seed, by_task=True)
        off.append(stand_in(table, estimate)[0].mean(axis=0) - true_M)
        naive.append(np.nanmean(table.quality_QM, axis=0) - true_M)
    assert np.mean(naive) > 0.1
    assert abs(np.mean(off)) < 0.02


def test_an_interval_is_as_wide_as_it_must_be_and_narrower_than_on_shared_queries() -> None:
    gaps, widths, shared = [], [], []
    for seed in range(60):
        table, estimate, true_M = drawn(seed, by_task=False)
        filled_QM = stand_in(table, estimate)[0]
        gap_Q = filled_QM[:, 0] - filled_QM[:, 1]
        gaps.append(gap_Q.mean() - (true_M[0] - true_M[1]))
        widths.append(gap_Q.std() / NUM**0.5)
        both_Q = table.quality_QM[:, 0] - table.quality_QM[:, 1]
        known_Q = both_Q[np.isfinite(both_Q)]
        shared.append(known_Q.std() / known_Q.size**0.5)
    assert np.std(gaps) == pytest.approx(np.mean(widths), rel=0.25)
    assert np.mean(widths) < 0.9 * np.mean(shared)


def test_other_outcomes_of_a_query_tell_how_hard_it_is() -> None:
    table, estimate, _ = drawn(0, by_task=False)
    seen_QM = table.observed_QM
    alone_QM = doubly_robust(table.quality_QM, estimate.quality_QM, chances(seen_QM, np.zeros((NUM, 1))))
    gap, gap_alone = (x[:, 0] - x[:, 1] for x in (stand_in(table, estimate)[0], alone_QM))
    assert gap.std() < 0.99 * gap_alone.std()


def test_a_full_table_is_judged_as_it_was_recorded() -> None:
    table, estimate, _ = drawn(0, by_task=False)
    full = table.where(table.observed_QM.all(axis=1))
    quality_QM, usd_QM, _ = stand_in(
        full, make_estimate(table.candidates, estimate.quality_QM[: len(full.queries)])
    )
    np.testing.assert_array_equal(quality_QM, full.quality_QM)
    np.testing.assert_array_equal(usd_QM, full.cost_usd_QM)


def test_costs_stand_in_like_qualities_and_an_unpriced_candidate_stays_unknown() -> None:
    table, estimate, _ = drawn(1, by_task=False)
    usd_QM = stand_in(table, estimate)[1]
    np.testing.assert_allclose(usd_QM.mean(axis=0), [2.0, 1.0, 1.0], rtol=0.1)
    unpriced = table.with_costs(np.where(table.candidate_index == 2, np.nan, table.cost_usd))
    nobody = make_estimate(
        table.candidates, estimate.quality_QM, cost_usd_QM=estimate.cost_usd_QM * [1.0, 1.0, np.nan]
    )
    assert np.isfinite(stand_in(unpriced, nobody)[1]).all(axis=0).tolist() == [True, True, False]


def test_a_cell_that_is_hardly_ever_observed_stays_unknown() -> None:
    value_QM = np.array([[1.0, np.nan], [np.nan, 0.0]])
    found_QM = doubly_robust(value_QM, np.full((2, 2), 0.5), np.array([[0.5, 0.01], [0.01, 0.25]]))
    np.testing.assert_array_equal(found_QM, [[1.5, np.nan], [np.nan, -1.5]])


def test_chances_follow_the_task_and_are_one_where_nothing_is_missing() -> None:
    rng = np.random.default_rng(0)
    x_QF = np.eye(2)[rng.integers(0, 2, size=NUM)]
    seen_QM = np.stack([rng.random(NUM) < np.where(x_QF[:, 0] > 0, 0.9, 0.2), np.ones(NUM, np.bool_)], axis=1)
    found_QM = chances(seen_QM, x_QF)
    assert found_QM[x_QF[:, 0] > 0, 0].mean() == pytest.approx(0.9, abs=0.04)
    assert found_QM[x_QF[:, 0] == 0, 0].mean() == pytest.approx(0.2, abs=0.04)
    assert (found_QM[:, 1] == 1.0).all()
