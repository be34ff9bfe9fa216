"""Lots fall as often as their propensities say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sequential.scripted import World, query
from turnout.core import InputError
from turnout.sequential import RandomSequencer, run
from turnout.sequential.trace import Chosen

NUM = 2000


def test_first_calls_are_even_and_say_so() -> None:
    outcomes = [run(World(), RandomSequencer(), query(), seed=seed) for seed in range(NUM)]
    first = Counter(outcome.trace.observed[0].call.candidate for outcome in outcomes)
    assert abs(first["small"] - NUM / 2) < 4 * (NUM / 4) ** 0.5
    choices = [event.choice for event in outcomes[0].trace.events if isinstance(event, Chosen)]
    assert [choice.propensity for choice in choices] == [0.5, 1.0]
    assert {outcome.trace.num_calls for outcome in outcomes} == {1}


def test_inverse_propensities_average_to_the_number_of_sequences() -> None:
    """The mean of 1 / P(trace) over traces drawn from P is the number of possible traces, here 4."""
    weights = []
    for seed in range(NUM):
        events = run(World(), RandomSequencer(stop=0.4), query(), seed=seed).trace.events
        weight = 1.0
        for event in events:
            if isinstance(event, Chosen):
                weight /= event.choice.propensity
        weights.append(weight)
    # small | large | small, large | large, small
    assert sum(weights) / NUM == pytest.approx(4.0, abs=0.1)


def test_nobody_is_asked_twice_and_failures_are_followed_up() -> None:
    for seed in range(20):
        outcome = run(World(failing=["small"]), RandomSequencer(), query(), seed=seed)
        assert outcome.answer == "large 0"


@pytest.mark.parametrize("stop", [0.0, 1.5])
def test_stopping_is_a_probability_above_zero(stop: float) -> None:
    with pytest.raises(InputError, match=r"RandomSequencer\.stop"):
        RandomSequencer(stop=stop)
