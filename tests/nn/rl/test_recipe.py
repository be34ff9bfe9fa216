"""The whole recipe on a table of the package: warm start, a few updates of GRPO, held-out queries."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.router_r1_recipe import Size, run_seed
from benchmarks.router_r1_world import World
from turnout.datasets import load


@pytest.fixture(scope="module")
def world() -> World:
    return World("reason18", load("reason18"), cost_weight=0.3, num_test=60)


def test_a_demonstration_follows_the_protocol_and_is_scored(world: World) -> None:
    rng = np.random.default_rng(0)
    shown = [world.demonstration(rng) for _ in range(20)]
    assert {len(one.turns) for one in shown} == {2, 3, 4}
    assert any("same" in reply for one in shown for reply in one.replies)
    for one in shown:
        query = next(q for q in world.train.queries if world.prompt(q) == one.prompt)
        task = world.begin(query.id)
        for turn in one.turns:
            task.reply(turn)
        (episode,) = world.episodes([task])
        assert episode.is_valid
        assert episode.usd > 0


def test_held_out_queries_are_no_training_queries(world: World) -> None:
    assert not {q.id for q in world.train.queries} & {q.id for q in world.test.queries}
    assert world.names[world.best_single()] in world.names


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_recipe_runs_and_starts_with_broken_formats(world: World) -> None:
    pytest.importorskip("trl")
    found = run_seed(world, 0, Size(warm_steps=80, steps=4, prompts=4, group=4))
    assert len(found["history"]) == 4
    for key in ("before", "after"):
        assert found[key]["valid"].shape == (60,)
        assert np.all((found[key]["reward"] >= -1) & (found[key]["reward"] <= 1))
    assert 0 < found["before"]["valid"].mean() < 1
