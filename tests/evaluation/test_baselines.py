from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import make_table
from turnout.core import OutcomeTable
from turnout.evaluation.baselines import (
    best_per_group,
    best_single,
    group_choices,
    oracle_choices,
    random_outcome,
)
from turnout.evaluation.halves import halved_oracle

NAN = float("nan")


def test_best_single_is_the_highest_mean_and_a_tie_goes_to_the_cheaper() -> None:
    quality = [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    assert best_single(make_table(quality)) == "m2"
    tied = [[1.0, 0.0], [0.0, 1.0]]
    assert best_single(make_table(tied, [[2e-3, 1e-3]] * 2)) == "m1"
    assert best_single(make_table(tied, names=["b", "a"])) == "a"


def test_a_mean_over_few_easy_queries_does_not_win() -> None:
    quality = np.array([[0.6, NAN]] * 9 + [[0.9, 1.0]])
    assert best_single(make_table(quality)) == "m0"


def test_sparse_candidates_are_compared_on_queries_that_all_of_them_answered() -> None:
    # m1 missed the hard first query; on the 20 that both answered m0 is better.
    quality = np.array([[0.0, NAN]] + [[0.9, 0.88]] * 20)
    assert best_single(make_table(quality)) == "m0"


def test_of_many_candidates_the_lucky_one_of_few_answers_is_not_the_best() -> None:
    rng = np.random.default_rng(2)
    quality = np.where(rng.random((40, 60)) < 0.55, (rng.random((40, 60)) < 0.5).astype(float), NAN)
    quality[:, 0] = [1.0, 1.0, 1.0, 0.0] * 10  # 30 of 40
    quality[:, 1] = np.where(np.arange(40) < 20, 1.0, NAN)
    quality[:20, 1] = [1.0] * 16 + [0.0] * 4  # 16 of 20
    assert np.nanmean(quality, axis=0).argmax() == 1
    assert best_single(make_table(quality)) == "m0"


def test_few_answers_are_no_reason_to_leave_one_out_where_nobody_was_kept_from_a_place() -> None:
    rng = np.random.default_rng(3)
    chance_QM = np.broadcast_to([0.5, 0.8], (600, 2))
    seen_QM = rng.random((600, 2)) < [1.0, 0.2]
    table = make_table(np.where(seen_QM, (rng.random((600, 2)) < chance_QM).astype(float), NAN))
    assert best_single(table) == "m0"
    assert best_single(table, min_coverage=0.0) == "m1"


def test_the_level_of_a_query_counts_out_of_what_a_candidate_adds() -> None:
    rng = np.random.default_rng(0)
    level_Q1, value_M = 0.8 * rng.random((400, 1)), np.array([0.2, 0.05, 0.1, 0.0])
    # The worst candidate was asked the easy queries, the best the hard ones.
    asked_QM = rng.random((400, 4)) < np.where(level_Q1 > 0.4, [[0.5, 0.5, 0.5, 0.9]], [[0.9, 0.5, 0.5, 0.1]])
    sparse_QM = np.where(asked_QM, level_Q1 + value_M, NAN)
    assert np.nanmean(sparse_QM, axis=0).argmax() == 3
    assert best_single(make_table(sparse_QM)) == "m0"


def test_where_no_query_is_shared_tasks_are_compared_and_without_any_the_means() -> None:
    quality = np.array([[0.9, NAN], [0.7, NAN], [NAN, 0.6], [NAN, 0.4]])
    assert best_single(make_table(quality)) == "m0"
    quality = np.array([[0.9, NAN]] * 8 + [[NAN, 0.95], [0.2, NAN]] + [[NAN, 0.3]] * 8)
    assert best_single(make_table(quality)) == "m0"
    assert best_single(make_table(quality, tasks=["easy"] * 9 + ["hard"] * 9)) == "m1"


def test_each_task_gets_its_best_and_an_unseen_task_the_fallback() -> None:
    quality = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    best = best_per_group(make_table(quality, tasks=["a", "b", None]))
    assert best == {"a": "m0", "b": "m1", None: "m1"}
    other = make_table([[0.0, 0.0]] * 4, tasks=["b", "a", "new", None])
    assert group_choices(best, "m0", other).tolist() == [1, 0, 0, 1]


def test_random_is_the_exact_mean_over_what_was_observed() -> None:
    quality, cost = random_outcome(
        np.array([[0.0, 1.0, 0.5], [NAN, 1.0, 0.0]]), np.array([[1.0, 2.0, 6.0], [9.0, NAN, 4.0]])
    )
    assert quality.tolist() == [0.5, 0.5]
    assert cost is not None
    assert cost.tolist() == [3.0, 4.0]


def test_the_oracle_takes_the_cheapest_of_the_best_and_then_the_earlier_name() -> None:
    quality = np.array([[1.0, 1.0, 0.0], [0.2, 0.2, 0.2], [NAN, 0.1, NAN], [1.0, 1.0, 1.0]])
    cost = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [NAN, NAN, 7.0]])
    assert oracle_choices(quality, cost, ["c", "b", "a"]).tolist() == [1, 2, 1, 2]
    assert oracle_choices(quality, None, ["c", "b", "a"]).tolist() == [1, 2, 1, 2]


def repeated(quality_QMS: np.ndarray) -> OutcomeTable:
    row, column, sample = (axis.ravel() for axis in np.indices(quality_QMS.shape))
    base = make_table(np.zeros(quality_QMS.shape[:2]))
    return OutcomeTable(
        queries=base.queries,
        candidates=base.candidates,
        query_index=row,
        candidate_index=column,
        sample=sample,
        quality=quality_QMS.ravel(),
    )


def test_half_of_the_samples_choose_and_the_other_half_score() -> None:
    # The even sample prefers m0, which is worth 0.2 in the odd one; the odd prefers m1, worth 0.4.
    one = np.array([[[1.0, 0.2], [0.4, 0.8]]])
    assert halved_oracle(repeated(np.repeat(one, 40, axis=0))) == pytest.approx(0.3)


def test_luck_is_not_counted() -> None:
    flips = (np.random.default_rng(0).random((3000, 6, 2)) < 0.5).astype(np.float64)
    table = repeated(flips)
    assert table.quality_QM.max(axis=1).mean() > 0.8
    assert halved_oracle(table) == pytest.approx(0.5, abs=0.03)


def test_without_repetition_nothing_is_said_of_luck() -> None:
    assert halved_oracle(make_table(np.ones((40, 2)))) is None


def test_a_table_without_qualities_has_no_best() -> None:
    table = make_table([[NAN, 0.5], [NAN, 0.5]]).select(candidates=["m0"])
    with pytest.raises(ValueError, match="no observed quality"):
        best_single(table)
