"""The dynamic programme is exact: it equals a search through every plan, and nobody exceeds it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from turnout.core import InputError
from turnout.sequential import Bounds, FixedOrder, OptimalSequencer, RandomSequencer, Sequencer, run
from turnout.sequential.actions import Call, Choice, Stop
from turnout.sequential.dynamic import STOP_FIRST, Optimum, optimal_value
from turnout.sequential.synthetic import SIGNAL, SyntheticTask
from turnout.sequential.trace import Trace

TASK = SyntheticTask()
SMALL = SyntheticTask(
    success=((0.9, 0.95), (0.2, 0.7)),
    usd=(0.125, 0.5),
    difficulty=(0.4, 0.6),
    hint=((0.8, 0.2), (0.3, 0.7)),
    signal=((0.8, 0.2), (0.3, 0.7)),
    rounds=2,
)


def by_trying_everything(task: SyntheticTask, price: float, budget_usd: float = np.inf) -> float:
    """Return the value of the best of all plans, each listed whole and weighed by every outcome there is.

    A plan says for everything that may have come back: answer with the last, answer with the first, or ask
    any list of candidates, one or several at once. No plan is dropped before the end.
    """
    hints = range(task.hint_ZH.shape[1])
    return float(sum(_worths(task, (price, budget_usd), hint, (), ()).max() for hint in hints))


def _worths(
    task: SyntheticTask,
    price_and_budget: tuple[float, float],
    hint: int,
    asked: tuple[int, ...],
    signals: tuple[int, ...],
) -> np.ndarray:
    """Return what every plan from here on adds, times the chance of getting here."""
    price, budget_usd = price_and_budget
    plans = [np.array([_chance(task, hint, asked, signals, place) for place in (0, -1)])]
    for more in range(1, task.rounds - len(asked) + 1):
        for called in product(range(len(task.usd)), repeat=more):
            usd = sum(task.usd[m] for m in called)
            if sum(task.usd[m] for m in asked) + usd > budget_usd:
                continue
            # One plan for every outcome, in every combination.
            sums = np.array([-price * usd * _chance(task, hint, asked, signals)])
            for seen in product(range(2), repeat=more):
                ahead = _worths(task, price_and_budget, hint, (*asked, *called), (*signals, *seen))
                sums = (sums[:, None] + ahead).ravel()
            plans.append(sums)
    return np.concatenate(plans)


def _chance(
    task: SyntheticTask, hint: int, asked: tuple[int, ...], signals: tuple[int, ...], place: int | None = None
) -> float:
    """Return P(hint, signals), and that the answer at `place` is right, if one is given."""
    if place is not None and not asked:
        return 0.0
    total = 0.0
    for z, rights in product(range(len(task.prior_Z)), product(range(2), repeat=len(asked))):
        if place is None or rights[place]:
            chance = task.prior_Z[z] * task.hint_ZH[z, hint]
            for m, is_right, signal in zip(asked, rights, signals, strict=True):
                p = task.success_ZM[z, m]
                chance *= (p if is_right else 1 - p) * task.signal_CS[is_right, signal]
            total += chance
    return total


@pytest.mark.parametrize("price", [0.0, 0.3, 0.8, 3.0])
@pytest.mark.parametrize("budget_usd", [0.25, 0.75, None])
def test_it_equals_the_best_of_all_plans(price: float, budget_usd: float | None) -> None:
    tried = by_trying_everything(SMALL, price, np.inf if budget_usd is None else budget_usd)
    assert optimal_value(SMALL, price=price, budget_usd=budget_usd) == pytest.approx(tried, abs=1e-12)


def test_it_equals_the_best_of_all_plans_of_three_rounds() -> None:
    three = SyntheticTask(
        success=((0.9, 0.55), (0.3, 0.6)), usd=(0.125, 0.25), hint=None, signal=SMALL.signal, rounds=3
    )
    for price in (0.0, 0.2):
        tried = by_trying_everything(three, price, 0.5)
        assert optimal_value(three, price=price, budget_usd=0.5) == pytest.approx(tried, abs=1e-12)


class AskedTwice(Sequencer):
    """Asks the middle one twice and stops with the first answer where that one looked better."""

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        signals = [seen.signals[SIGNAL] for seen in trace.observed]
        if len(signals) < 2 and signals != [2.0]:
            return Choice(action=Call(candidate="m1", sample=len(signals)))
        return Choice(action=Stop(aggregate="first" if signals[0] > signals[-1] else "last"))


def test_the_first_answer_may_be_the_better_one() -> None:
    world = TASK.environment(4000, seed=5)
    bounds = Bounds(usd=1 / 8, calls=TASK.rounds)
    played = [
        np.mean([run(world, player, query, bounds=bounds).quality for query in world.queries])
        for player in (AskedTwice(), OptimalSequencer(task=TASK))
    ]
    best = optimal_value(TASK, budget_usd=1 / 8)
    # With the last answer alone it is 0.698; the plan above is as good as any other.
    assert best == pytest.approx(0.72229, abs=1e-5)
    assert played == pytest.approx([best, best], abs=2 * 0.45 / 4000**0.5)


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


def test_a_step_that_is_not_left_to_stop_with_is_not_planned_for() -> None:
    # The first answer can be taken back to in a step of its own alone.
    two = Optimum(TASK, budget_usd=1 / 8, calls=2)
    assert Optimum(TASK, budget_usd=1 / 8, steps=2).value < two.value - 0.01
    assert Optimum(TASK, budget_usd=1 / 8, calls=2, steps=3).value == two.value


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
    assert optimum.chance_right(seen, STOP_FIRST) == optimum.chance_right(seen)
    # Whichever came first, both answers are as likely right as in the other order.
    there, back = seen.after(2), start.after(2).after(1)
    assert optimum.chance_right(there, STOP_FIRST) == pytest.approx(optimum.chance_right(back))
    assert optimum.chance_right(there) == pytest.approx(optimum.chance_right(back, STOP_FIRST))


def test_a_task_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.sequential.dynamic.MAX_STATES", 50)
    with pytest.raises(InputError, match="shrink the task"):
        optimal_value(TASK)
    with pytest.raises(InputError, match="price"):
        Optimum(TASK, price=-1.0)
