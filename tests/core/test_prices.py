"""One update moves every dual price: that of a request budget and that of an expert balance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InputError
from turnout.core.prices import dual_sign_step, dual_step

LOADS = st.lists(st.integers(0, 1000), min_size=2, max_size=8).map(lambda loads: np.array(loads, np.float64))
STEPS = st.sampled_from([2.0**-k for k in range(2, 12)])


@given(LOADS, LOADS, STEPS)
def test_a_request_budget_and_an_expert_balance_move_by_the_same_numbers(
    usage: np.ndarray, again: np.ndarray, step: float
) -> None:
    num = min(usage.size, again.size)
    target = float(usage[:num].mean())
    # A balance keeps a bias per expert that is added to the score: b <- b + step * (target - load).
    bias = np.full(num, 4096.0)
    price = -bias
    for load in (usage[:num], again[:num]):
        bias = bias + step * (target - load)
        price = dual_step(price, usage=load, target=target, step=step, low=-math.inf)
    np.testing.assert_array_equal(price, -bias)


@given(LOADS, STEPS)
def test_selection_by_bias_is_selection_by_price(load: np.ndarray, step: float) -> None:
    affinity = np.linspace(0.0, 1.0, load.size)
    price = dual_sign_step(np.zeros(load.size), usage=load, target=load.mean(), step=step, low=-math.inf)
    bias = step * np.sign(load.mean() - load)
    np.testing.assert_array_equal(np.argsort(affinity - price), np.argsort(affinity + bias))


@given(LOADS, STEPS)
def test_what_is_overused_gets_dearer_and_what_is_not_gets_cheaper(load: np.ndarray, step: float) -> None:
    price = np.full(load.size, 1e6)
    moved = dual_step(price, usage=load, target=load.mean(), step=step)
    np.testing.assert_array_equal(np.sign(moved - price), np.sign(load - load.mean()))


def test_a_price_of_money_is_never_negative_and_one_of_a_balance_may_be() -> None:
    under: dict[str, Any] = {"usage": 0.0, "target": 5.0, "step": 1.0}
    assert dual_step(2.0, **under) == 0.0
    assert dual_step(2.0, **under, low=-math.inf) == -3.0
    assert dual_sign_step(0.5, **under) == 0.0


def test_a_step_of_fixed_length_reads_only_the_direction() -> None:
    moved = dual_sign_step([1.0, 1.0, 1.0], usage=[9.0, 5.0, 1.0], target=5.0, step=0.25)
    np.testing.assert_array_equal(moved, [1.25, 1.0, 0.75])


def test_repeated_updates_find_the_price_at_which_the_budget_is_spent() -> None:
    # Two candidates; a query takes the dear one where its gain exceeds price * 1 usd. With gains uniform in
    # [0, 1] and a mean spend of 0.3 usd, the price that clears is 0.7 in closed form.
    gain_Q = (np.arange(10_000) + 0.5) / 10_000
    price = np.zeros(())
    for _ in range(400):
        price = dual_step(price, usage=float((gain_Q > price).mean()), target=0.3, step=0.05)
    assert float(price) == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_a_step_that_does_not_move_is_refused(step: float) -> None:
    with pytest.raises(InputError, match="dual_step: step; allowed: a number above 0; got: "):
        dual_step(0.0, usage=1.0, target=0.0, step=step)
