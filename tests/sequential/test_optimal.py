"""The optimal sequencer reaches the value that the dynamic programme promises."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core import InputError
from turnout.sequential import Bounds, run
from turnout.sequential.auditing import audit
from turnout.sequential.dynamic import optimal_value
from turnout.sequential.optimal import OptimalSequencer
from turnout.sequential.synthetic import SyntheticTask

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


def test_it_asks_nobody_where_nothing_is_worth_its_price() -> None:
    world = TASK.environment(5, seed=0)
    outcome = run(world, OptimalSequencer(task=TASK, price=1e6), world.queries[0])
    assert (outcome.trace.num_calls, outcome.quality) == (0, 0.0)


def test_it_takes_a_task_and_a_price() -> None:
    with pytest.raises(InputError, match=r"OptimalSequencer\.task"):
        OptimalSequencer(task=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"OptimalSequencer\.price"):
        OptimalSequencer(task=TASK, price=-1.0)
