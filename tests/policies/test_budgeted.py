from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.pools import make_pool, random_estimate
from turnout.core import Budget, Estimate, InputError, make_estimate
from turnout.policies import Best, Budgeted

RNG = np.random.default_rng(0)


def dual_bound(estimate: Estimate, cap_usd: float) -> float:
    """Return the value of the Lagrangian dual: no policy under the cap has a larger mean quality."""
    prices = np.concatenate([[0.0], np.geomspace(1e-3, 1e8, 4000)])
    return min(
        float((estimate.quality_QM - p * estimate.cost_usd_QM).max(axis=1).mean() + p * cap_usd)
        for p in prices
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), usd_per_1k=st.floats(0.5, 9.0))
def test_the_cap_holds_and_quality_is_within_one_query_of_the_dual_bound(
    seed: int, usd_per_1k: float
) -> None:
    estimate = random_estimate(seed, 60)
    decisions = Budgeted().decide(estimate, Budget(usd_per_1k=usd_per_1k), RNG)
    if "cannot be met" in decisions.reason_Q[0]:
        assert decisions.cost_usd_Q.mean() * 1000 > usd_per_1k
        return
    assert decisions.cost_usd_Q.mean() * 1000 <= usd_per_1k * (1 + 1e-9)
    bound = dual_bound(estimate, usd_per_1k / 1000)
    assert decisions.quality_Q.mean() >= bound - 1.0 / 60 - 1e-3


def test_a_loose_cap_is_the_best_quality() -> None:
    estimate = random_estimate(3)
    capped = Budgeted().decide(estimate, Budget(usd_per_1k=1e6), RNG)
    assert (capped.choice_Q == Best().decide(estimate, Budget(), RNG).choice_Q).all()


def test_an_impossible_cap_takes_the_cheapest_and_says_so() -> None:
    estimate = random_estimate(4)
    decisions = Budgeted().decide(estimate, Budget(usd_per_1k=1e-9), RNG)
    assert (decisions.choice_Q == estimate.cost_usd_QM.argmin(axis=1)).all()
    assert set(decisions.reason_Q) == {"cheapest; the spend cap cannot be met"}


def test_identical_queries_share_the_money_that_is_left() -> None:
    # 10 equal queries: 0.5 quality for 1 usd or 0.9 for 3 usd; a cap of 2 usd pays for 5 upgrades.
    estimate = make_estimate(
        make_pool(2), np.tile([0.5, 0.9], (10, 1)), cost_usd_QM=np.tile([1.0, 3.0], (10, 1))
    )
    decisions = Budgeted().decide(estimate, Budget(usd_per_1k=2000.0), RNG)
    assert (decisions.choice_Q == 1).sum() == 5


def test_candidates_of_unknown_cost_keep_no_promise_about_money() -> None:
    estimate = make_estimate(
        make_pool(2), np.array([[0.9, 0.5]] * 4), cost_usd_QM=np.array([[np.nan, 0.001]] * 4)
    )
    decisions = Budgeted().decide(estimate, Budget(usd_per_1k=10.0), RNG)
    assert set(decisions.names_Q) == {"m1"}


def test_no_cost_at_all_is_refused() -> None:
    estimate = make_estimate(make_pool(2), np.full((2, 2), 0.5))
    with pytest.raises(InputError, match=r"Budgeted\.decide: money is asked for"):
        Budgeted().decide(estimate, Budget(usd_per_1k=1.0), RNG)
