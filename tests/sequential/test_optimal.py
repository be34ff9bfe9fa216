"""The optimal sequencer reaches the value that the dynamic programme promises."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core import InputError
from turnout.sequential import Bounds, Started, Stop, Trace, run
from turnout.sequential.auditing import audit
from turnout.sequential.dynamic import Optimum, optimal_value
from turnout.sequential.optimal import OptimalSequencer
from turnout.sequential.synthetic import SyntheticTask
from turnout.sequential.trace import Refused

TASK = SyntheticTask()


@pytest.mark.parametrize(("price", "budget_usd"), [(0.0, None), (0.0, 1 / 8), (0.5, None), (0.5, 1 / 4)])
def test_simulation_agrees_with_the_value(price: float, budget_usd: float | None) -> None:
    world = TASK.environment(1000, seed=2)
    sequencer = OptimalSequencer(task=TASK, price=price)
    bounds = Bounds(usd=budget_usd, calls=TASK.rounds)
    outcomes = [run(world, sequencer, query, bounds=bounds) for query in world.queries]
    gain = np.array([outcome.quality - price * outcome.usd for outcome in outcomes])
    best = optimal_value(TASK, price=price, budget_usd=budget_usd)
    assert abs(gain.mean() - best) < 4 * gain.std() / gain.size**0.5
    assert max(outcome.usd for outcome in outcomes) <= (budget_usd or np.inf)
    assert all(audit(outcome.trace, sequencer) is None for outcome in outcomes[:20])


def test_a_budget_that_floats_miss_by_a_hair_is_played_out_and_not_refused_for_ever() -> None:
    # 0.3 - 0.1 - 0.1 is less than 0.1.
    task = SyntheticTask(usd=(0.1, 0.1), success=((0.6, 0.5), (0.3, 0.5)), hint=None, rounds=3)
    world = task.environment(40, seed=0)
    outcomes = [run(world, OptimalSequencer(task=task), q, bounds=Bounds(usd=0.3)) for q in world.queries]
    assert {outcome.ended.how for outcome in outcomes} == {"stop"}
    assert not any(isinstance(event, Refused) for o in outcomes for event in o.trace.events)
    assert max(outcome.trace.num_calls for outcome in outcomes) == 3


@pytest.mark.parametrize("bounds", [Bounds(calls=1), Bounds(calls=2), Bounds(steps=2)])
def test_fewer_calls_than_rounds_are_planned_for(bounds: Bounds) -> None:
    world = TASK.environment(1000, seed=4)
    outcomes = [run(world, OptimalSequencer(task=TASK, price=0.2), q, bounds=bounds) for q in world.queries]
    assert not any(isinstance(event, Refused) for o in outcomes for event in o.trace.events)
    gain = np.array([outcome.quality - 0.2 * outcome.usd for outcome in outcomes])
    optimum = Optimum(TASK, price=0.2, calls=bounds.calls, steps=bounds.steps)
    best = optimum.value
    assert best < optimal_value(TASK, price=0.2)
    assert abs(gain.mean() - best) < 4 * gain.std() / gain.size**0.5


def test_whoever_may_not_be_called_is_not_chosen() -> None:
    (query,) = TASK.environment(1, seed=0).queries
    trace = Trace(Started(query=query, candidates=(), bounds=Bounds(), seed=0))
    choice = OptimalSequencer(task=TASK).next(trace, np.random.default_rng(0))
    assert isinstance(choice.action, Stop)


def test_it_asks_nobody_where_nothing_is_worth_its_price() -> None:
    world = TASK.environment(5, seed=0)
    outcome = run(world, OptimalSequencer(task=TASK, price=1e6), world.queries[0])
    assert (outcome.trace.num_calls, outcome.quality) == (0, 0.0)


def test_it_takes_a_task_and_a_price() -> None:
    with pytest.raises(InputError, match=r"OptimalSequencer\.task"):
        OptimalSequencer(task=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"OptimalSequencer\.price"):
        OptimalSequencer(task=TASK, price=-1.0)
