from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.pools import make_pool, random_estimate
from turnout.core import Budget, make_estimate
from turnout.policies import Cheapest

RNG = np.random.default_rng(0)


@given(seed=st.integers(0, 10_000), floor=st.floats(0.0, 1.0))
def test_it_is_the_cheapest_of_those_that_reach_the_floor_else_the_best(seed: int, floor: float) -> None:
    estimate = random_estimate(seed)
    decisions = Cheapest().decide(estimate, Budget(min_quality=floor), RNG)
    for row in range(estimate.num_queries):
        enough = np.flatnonzero(estimate.quality_QM[row] >= floor)
        if enough.size:
            expected = enough[estimate.cost_usd_QM[row, enough].argmin()]
        else:
            expected = estimate.quality_QM[row].argmax()
        assert decisions.choice_Q[row] == expected


def test_a_share_of_one_is_the_best_quality_and_of_zero_the_cheapest() -> None:
    estimate = random_estimate(5)
    best = Cheapest(share=1.0).decide(estimate, Budget(), RNG)
    cheapest = Cheapest(share=0.0).decide(estimate, Budget(), RNG)
    assert (best.choice_Q == estimate.quality_QM.argmax(axis=1)).all()
    assert (cheapest.choice_Q == estimate.cost_usd_QM.argmin(axis=1)).all()


def test_unknown_cost_is_never_the_cheapest() -> None:
    estimate = make_estimate(make_pool(2), np.array([[0.9, 0.9]]), cost_usd_QM=np.array([[np.nan, 5.0]]))
    assert Cheapest().decide(estimate, Budget(min_quality=0.5), RNG).names_Q == ("m1",)


def test_caution_needs_a_surer_candidate() -> None:
    estimate = make_estimate(
        make_pool(2), np.array([[0.80, 0.81]]), spread_QM=np.array([[0.3, 0.0]]),
        cost_usd_QM=np.array([[1.0, 2.0]]),
    )  # fmt: skip
    assert Cheapest().decide(estimate, Budget(min_quality=0.75), RNG).names_Q == ("m0",)
    assert Cheapest(caution=1.0).decide(estimate, Budget(min_quality=0.75), RNG).names_Q == ("m1",)
