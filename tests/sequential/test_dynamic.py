"""The dynamic programme is exact: it equals a search through every plan, and nobody exceeds it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from turnout.core import InputError
from turnout.sequential import Bounds, FixedOrder, RandomSequencer, Sequencer, run
from turnout.sequential.dynamic import Optimum, optimal_value
from turnout.sequential.synthetic import SyntheticTask

TASK = SyntheticTask()
SMALL = SyntheticTask(
    success=((0.9, 0.95), (0.2, 0.7)),
    usd=(0.125, 0.5),
    difficulty=(0.4, 0.6),
    hint=((0.8, 0.2), (0.3, 0.7)),
    signal=((0.8, 0.2), (0.3, 0.7)),
    rounds=2,
)


def by_trying_everything(task: SyntheticTask, price: float) -> float:
    """Return the value of the best plan of two rounds, by listing all plans and all outcomes.

    A plan: stop at once, or a first candidate and for either of its two signals a second one or none.
    """
    total = 0.0
    for hint in range(2):
        values = [0.0]
        for first in range(2):
            plans = product((None, 0, 1), repeat=2)
            values.extend(_worth(task, price, hint, first, seconds) for seconds in plans)
        total += max(values)
    return total


def _worth(
    task: SyntheticTask, price: float, hint: int, first: int, seconds: tuple[int | None, ...]
) -> float:
    worth = 0.0
    for z, is_right, signal in product(range(2), range(2), range(2)):
        p = task.success_ZM[z, first]
        chance = task.prior_Z[z] * task.hint_ZH[z, hint] * (p if is_right else 1 - p)
        chance *= task.signal_CS[is_right, signal]
        second = seconds[signal]
        quality = is_right if second is None else task.success_ZM[z, second]
        usd = task.usd[first] + (0 if second is None else task.usd[second])
        worth += chance * (quality - price * usd)
    return worth


@pytest.mark.parametrize("price", [0.0, 0.3, 0.8, 3.0])
def test_it_equals_the_best_of_all_plans(price: float) -> None:
    assert optimal_value(SMALL, price=price) == pytest.approx(by_trying_everything(SMALL, price), abs=1e-12)


@pytest.mark.parametrize("budget_usd", [None, 1 / 16, 0.3])
def test_nobody_exceeds_it(budget_usd: float | None) -> None:
    world = TASK.environment(500, seed=4)
    best = optimal_value(TASK, budget_usd=budget_usd)
    rivals: list[Sequencer] = [
        *(FixedOrder(order=(f"m{m}",)) for m in range(3)),
        FixedOrder(order=("m0", "m2")),
        RandomSequencer(stop=0.3),
    ]
    bounds = Bounds(usd=budget_usd, calls=TASK.rounds)
    for rival in rivals:
        quality = np.mean([run(world, rival, query, bounds=bounds).quality for query in world.queries])
        assert quality <= best + 4 * 0.5 / 500**0.5


def test_more_money_and_a_lower_price_never_hurt() -> None:
    values = [optimal_value(TASK, budget_usd=usd) for usd in (0.0, 0.01, 1 / 64, 1 / 16, 1 / 4, 1 / 2)]
    assert values == sorted(values)
    assert values[0] == values[1] == 0.0
    prices = [optimal_value(TASK, price=price) for price in (0.0, 0.5, 2.0, 1e9)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] == 0.0


def test_what_is_certain_is_known() -> None:
    sure = SyntheticTask(success=((1.0, 0.0), (0.0, 1.0)), usd=(1.0, 1.0), hint=None, rounds=2)
    told = SyntheticTask(success=sure.success, usd=sure.usd, hint=((1.0, 0.0), (0.0, 1.0)), rounds=2)
    clear = SyntheticTask(
        success=sure.success, usd=sure.usd, hint=None, signal=((1.0, 0.0), (0.0, 1.0)), rounds=2
    )
    assert optimal_value(told, price=0.25) == pytest.approx(0.75)
    assert optimal_value(clear) == pytest.approx(1.0)
    assert optimal_value(clear, price=0.25) == pytest.approx(1.0 - 0.25 * 1.5)
    assert optimal_value(clear, budget_usd=1.5) == pytest.approx(0.5)


def test_beliefs_follow_bayes() -> None:
    optimum = Optimum(SMALL)
    start = optimum.start(0)
    assert optimum.posterior_Z(start) == pytest.approx(np.array([0.32, 0.18]) / 0.5)
    seen = start.after(1)
    chance_Z = np.array([0.9 * 0.7 + 0.1 * 0.2, 0.2 * 0.7 + 0.8 * 0.2])
    weight_Z = np.array([0.32, 0.18]) * chance_Z
    assert optimum.posterior_Z(seen) == pytest.approx(weight_Z / weight_Z.sum())
    right = (np.array([0.32, 0.18]) * np.array([0.63, 0.14])).sum() / weight_Z.sum()
    assert optimum.chance_right(seen) == pytest.approx(right)
    assert (optimum.chance_right(start), optimum.spent_usd(seen)) == (0.0, 0.125)


def test_a_task_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.sequential.dynamic.MAX_STATES", 50)
    with pytest.raises(InputError, match="shrink the task"):
        optimal_value(TASK)
    with pytest.raises(InputError, match="price"):
        Optimum(TASK, price=-1.0)
