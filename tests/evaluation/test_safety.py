"""Where prompts go: shares by category, reach of unsafe candidates, and a screen's rates on fresh prompts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import choose, make_table
from turnout.core.errors import InputError, UnknownNameError
from turnout.evaluation.safety import reach, screen_rates, screen_threshold, shares_by_category


def test_shares_and_overspending_of_a_worked_case() -> None:
    table = make_table(
        [[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, np.nan]],
        [[1.0, 5.0], [1.0, 5.0], [1.0, 5.0], [1.0, 5.0]],
        names=["small", "large"],
        tasks=["code", "code", "talk", None],
    )
    found = shares_by_category(choose(table, [1, 1, 0, 1]), table)
    assert found.categories == ("", "code", "talk")
    assert found.candidates == ("small", "large")
    np.testing.assert_array_equal(found.count_T, [1, 2, 1])
    np.testing.assert_array_equal(found.share_TM, [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    # The small one would have done for one of two in code; nobody knows how good the large one was in "".
    np.testing.assert_array_equal(found.overspent_T, [np.nan, 0.5, 0.0])


def test_whom_nobody_serves_is_missing_from_the_shares() -> None:
    table = make_table([[1.0, 0.0], [1.0, 0.0]], tasks=["a", "a"])
    found = shares_by_category(choose(table, [-1, 1]), table)
    np.testing.assert_array_equal(found.share_TM, [[0.0, 0.5]])
    assert np.isnan(found.overspent_T).all()


def test_shares_need_decisions_on_the_table() -> None:
    table = make_table([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(InputError, match="2 decisions"):
        shares_by_category(choose(table, [0]), table)
    with pytest.raises(UnknownNameError, match="m1"):
        shares_by_category(choose(table, [0, 0]), make_table([[1.0], [1.0]], names=["m0"]))


def test_reach_counts_marked_prompts_alone() -> None:
    decisions = choose(make_table(np.ones((5, 3))), [0, 1, 2, 0, -1])
    is_harmful = np.array([True, True, False, False, True])
    assert reach(decisions, is_harmful, ["m0", "m2"]) == pytest.approx(1 / 3)
    assert np.isnan(reach(decisions, np.zeros(5, np.bool_), ["m0"]))
    with pytest.raises(UnknownNameError, match="m9"):
        reach(decisions, is_harmful, ["m9"])


@pytest.mark.parametrize("false_alarm", [0.05, 0.1, 0.3])
def test_the_stated_false_alarm_holds_on_average_over_fresh_prompts(false_alarm: float) -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        score_Q = rng.normal(size=(2, 60))
        is_harmful_Q = np.arange(60) % 3 == 0
        score_Q[:, is_harmful_Q] += 1.0
        threshold = screen_threshold(score_Q[0], is_harmful_Q, false_alarm=false_alarm)
        rates.append(screen_rates(score_Q[1], is_harmful_Q, threshold=threshold))
    held = np.mean([rate.false_alarm for rate in rates])
    # The bound is sharp up to one prompt of the forty.
    assert false_alarm - 1 / 41 - 0.01 < held < false_alarm + 0.01
    assert {rate.num_harmful for rate in rates} == {20}
    misses = np.mean([rate.miss for rate in rates])
    assert 0.0 < misses < 1.0 - false_alarm


def test_a_score_that_knows_misses_nothing_and_one_that_does_not_misses_almost_all() -> None:
    is_harmful_Q = np.arange(200) % 2 == 0
    rng = np.random.default_rng(0)
    for score_Q, low, high in ((is_harmful_Q + 0.1 * rng.random(200), 0.0, 0.0), (rng.random(200), 0.8, 1.0)):
        threshold = screen_threshold(score_Q[:100], is_harmful_Q[:100], false_alarm=0.05)
        rates = screen_rates(score_Q[100:], is_harmful_Q[100:], threshold=threshold)
        assert low <= rates.miss <= high


def test_a_screen_without_harmless_prompts_is_refused() -> None:
    with pytest.raises(InputError, match="harmless"):
        screen_threshold(np.ones(3), np.ones(3, np.bool_), false_alarm=0.1)
    with pytest.raises(InputError, match="NaN"):
        screen_threshold(np.array([np.nan, 0.0]), np.zeros(2, np.bool_), false_alarm=0.1)
    rates = screen_rates(np.ones(2), np.ones(2, np.bool_), threshold=0.5)
    assert np.isnan(rates.false_alarm)
    assert rates.miss == 0.0
