from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.pools import make_pool, random_estimate
from turnout.core import Budget, InputError, make_estimate
from turnout.policies import Best

RNG = np.random.default_rng(0)


@given(seed=st.integers(0, 10_000), price=st.floats(0.0, 1e6))
def test_the_choice_maximises_quality_minus_price_times_usd(seed: int, price: float) -> None:
    estimate = random_estimate(seed)
    decisions = Best().decide(estimate, Budget(price=price), RNG)
    score_QM = estimate.quality_QM - price * estimate.cost_usd_QM
    rows = np.arange(estimate.num_queries)
    assert np.allclose(score_QM[rows, decisions.choice_Q], score_QM.max(axis=1), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000), low=st.floats(0.0, 1e4), factor=st.floats(1.0, 1e3))
def test_mean_cost_never_rises_and_quality_never_rises_with_the_price(
    seed: int, low: float, factor: float
) -> None:
    estimate = random_estimate(seed)
    cheap = Best().decide(estimate, Budget(price=low * factor), RNG)
    dear = Best().decide(estimate, Budget(price=low), RNG)
    assert cheap.cost_usd_Q.sum() <= dear.cost_usd_Q.sum() + 1e-12
    assert cheap.quality_Q.sum() <= dear.quality_Q.sum() + 1e-9


def test_an_infinite_price_takes_the_cheapest_and_breaks_ties_by_quality() -> None:
    estimate = make_estimate(
        make_pool(3), np.array([[0.2, 0.9, 1.0]]), cost_usd_QM=np.array([[0.001, 0.001, 0.002]])
    )
    assert Best().decide(estimate, Budget(price=np.inf), RNG).names_Q == ("m1",)


def test_equal_quality_goes_to_the_cheaper_at_price_zero() -> None:
    estimate = make_estimate(make_pool(2), np.array([[0.7, 0.7]]), cost_usd_QM=np.array([[0.2, 0.1]]))
    assert Best().decide(estimate, Budget(), RNG).names_Q == ("m1",)


def test_unknown_quality_is_chosen_only_when_nothing_else_is_allowed() -> None:
    quality_QM = np.array([[np.nan, 0.01], [np.nan, 0.01]])
    allowed_QM = np.array([[True, True], [True, False]])
    estimate = make_estimate(make_pool(2), quality_QM, allowed_QM=allowed_QM)
    decisions = Best().decide(estimate, Budget(), RNG)
    assert decisions.names_Q == ("m1", "m0")
    assert "no candidate has a known score" in decisions.reason_Q[1]


def test_unknown_cost_is_not_free_once_money_counts() -> None:
    estimate = make_estimate(make_pool(2), np.array([[0.9, 0.5]]), cost_usd_QM=np.array([[np.nan, 0.1]]))
    assert Best().decide(estimate, Budget(), RNG).names_Q == ("m0",)
    assert Best().decide(estimate, Budget(price=0.1), RNG).names_Q == ("m1",)


def test_money_without_any_known_cost_is_refused_with_what_to_do() -> None:
    estimate = make_estimate(make_pool(2), np.array([[0.9, 0.5]]))
    with pytest.raises(InputError, match=r"no candidate has a known cost; give the candidates price cards"):
        Best().decide(estimate, Budget(price=1.0), RNG)


def test_caution_prefers_the_better_known_of_two() -> None:
    estimate = make_estimate(
        make_pool(2), np.array([[0.80, 0.78]]), spread_QM=np.array([[0.2, 0.01]]),
        cost_usd_QM=np.array([[1.0, 1.0]]),
    )  # fmt: skip
    assert Best().decide(estimate, Budget(), RNG).names_Q == ("m0",)
    assert Best(caution=1.0).decide(estimate, Budget(), RNG).names_Q == ("m1",)


def test_nobody_allowed_gives_no_choice_and_a_reason() -> None:
    estimate = random_estimate(1, 2).restrict(np.zeros((2, 5), np.bool_))
    decisions = Best().decide(estimate, Budget(), RNG)
    assert decisions.names_Q == (None, None)
    assert decisions[0].ranked == ()
    assert decisions.reason_Q[0] == "no candidate may serve this query"


def test_hard_caps_hold_for_every_choice() -> None:
    estimate = random_estimate(2, 200)
    budget = Budget(usd_per_query=0.004, max_latency_s=2.0)
    decisions = Best().decide(estimate, budget, RNG)
    served_Q = decisions.choice_Q >= 0
    rows = np.flatnonzero(served_Q)
    assert 0 < rows.size < 200
    assert (estimate.cost_usd_QM[rows, decisions.choice_Q[rows]] <= 0.004).all()
    assert (estimate.latency_s_QM[rows, decisions.choice_Q[rows]] <= 2.0).all()


@pytest.mark.parametrize("caution", [-0.1, float("nan"), "x", True])
def test_a_bad_caution_is_refused_by_name(caution: object) -> None:
    with pytest.raises(InputError, match=r"Best\.caution; allowed: a number in \[0, 100\]"):
        Best(caution=caution)  # type: ignore[arg-type]
