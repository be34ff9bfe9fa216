"""Synthetic tasks are drawn from the distribution that they state."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sequential.scripted import Scripted
from turnout.core import InputError
from turnout.core.artifact import load, save
from turnout.sequential import Bounds, Call, CallSet, FixedOrder, Stop, run
from turnout.sequential.synthetic import SIGNAL, SyntheticTask

TASK = SyntheticTask()
NUM = 2000


def test_frequencies_are_those_of_the_task() -> None:
    world = TASK.environment(NUM, seed=1)
    tolerance = 4 * 0.5 / NUM**0.5
    hints = np.array([int(query.tags["hint"]) for query in world.queries])
    assert abs(hints.mean() - (TASK.prior_Z @ TASK.hint_ZH)[1]) < tolerance
    for m in range(3):
        outcomes = [run(world, FixedOrder(order=(f"m{m}",)), query) for query in world.queries]
        right = np.array([outcome.quality for outcome in outcomes])
        signals = np.array([outcome.trace.observed[0].signals[SIGNAL] for outcome in outcomes])
        assert abs(right.mean() - TASK.prior_Z @ TASK.success_ZM[:, m]) < tolerance
        for is_right in (0, 1):
            found = signals[right == is_right]
            for signal, chance in enumerate(TASK.signal_CS[is_right]):
                assert abs((found == signal).mean() - chance) < 4 * 0.5 / found.size**0.5
        assert outcomes[0].usd == TASK.usd[m]


def test_the_same_seed_gives_the_same_outcomes_whoever_asks() -> None:
    world, again, other = (TASK.environment(200, seed=seed) for seed in (1, 1, 2))
    ways = [("m0", "m2"), ("m2",)]
    found = [[run(w, FixedOrder(order=ways[0]), q).quality for q in w.queries] for w in (world, again, other)]
    assert found[0] == found[1] != found[2]
    assert [run(world, FixedOrder(order=ways[1]), q).quality for q in world.queries] == found[0]


def test_samples_of_one_candidate_differ_and_end_with_the_rounds() -> None:
    world = TASK.environment(200, seed=0)
    calls = [Call(candidate="m1", sample=s) for s in range(5)]
    qualities = np.array(
        [[run(world, Scripted(lines=[call, Stop()]), q).quality for call in calls[:4]] for q in world.queries]
    )
    assert (qualities.std(axis=1) > 0).mean() > 0.2
    beyond = run(world, Scripted(lines=[calls[4], Stop()]), world.queries[0])
    assert "4 rounds" in (beyond.trace.observed[0].error or "")
    assert (beyond.quality, beyond.usd) == (0.0, 0.0)


def test_a_task_has_its_rounds_whoever_is_asked_and_no_texts_of_their_own() -> None:
    # Else a sequencer could ask more often than the optimum does, or buy the same draw again as the last.
    world = TASK.environment(1, seed=0)
    four = (Call(candidate=f"m{m}", sample=s) for m in range(2) for s in range(2))
    played = run(world, Scripted(lines=[*four, Call(candidate="m2"), Stop()]), world.queries[0])
    assert [seen.error for seen in played.trace.observed] == [None] * 4 + ["a task has 4 rounds"]
    assert played.usd == 2 / 64 + 2 / 16
    at_once = CallSet(calls=tuple(Call(candidate="m0", sample=s) for s in (3, 2, 1, 0)))
    beyond = run(world, Scripted(lines=[at_once, Call(candidate="m2"), Stop()]), world.queries[0])
    assert [seen.error is None for seen in beyond.trace.observed] == [True] * 4 + [False]
    again = Call(candidate="m0", text="once more")
    with pytest.raises(InputError, match="with a text of its own"):
        run(world, Scripted(lines=[Call(candidate="m0"), again, Stop()]), world.queries[0])


def test_a_budget_bounds_the_spending() -> None:
    world = TASK.environment(50, seed=0)
    order = FixedOrder(order=("m2", "m1", "m0", "m0"))
    outcomes = [run(world, order, query, bounds=Bounds(usd=0.1)) for query in world.queries]
    assert {outcome.usd for outcome in outcomes} == {1 / 16 + 2 / 64}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("success", ((0.5, 0.5),)),
        ("success", ((1.5, 0.5, 0.5),)),
        ("difficulty", (0.5, 0.5)),
        ("hint", ((0.5, 0.6),) * 3),
        ("signal", ((1.0,),)),
        ("signal", ((-1.0, 2.0), (0.5, 0.5))),
        ("usd", ()),
        ("rounds", 0),
    ],
)
def test_what_is_no_distribution_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match="SyntheticTask"):
        SyntheticTask(**{name: value})  # type: ignore[arg-type]


def test_a_foreign_query_is_refused() -> None:
    few, many = TASK.environment(1, seed=0), TASK.environment(3, seed=0)
    with pytest.raises(InputError, match="one of `queries`"):
        run(few, FixedOrder(order=("m0",)), many.queries[2])


def test_it_is_saved(tmp_path: object) -> None:
    task = SyntheticTask(success=((0.5, 1.0),), usd=(0.25, 1.0), hint=None, rounds=2)
    again = load(save(task, f"{tmp_path}/task"))
    assert repr(again) == repr(task)
