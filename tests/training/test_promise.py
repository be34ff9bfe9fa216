"""A promise is held against held-out queries, and what is said when it is missed or when the mix moved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.policies import Deployment
from turnout.training import study, train

WORDS = {"sums": "add these numbers please", "poems": "write a verse about rain", "law": "read this contract"}
CHANCES = {"sums": (0.9, 0.98), "poems": (0.2, 0.9), "law": (0.2, 0.9)}
USD = (0.0001, 0.001)


def make_table(tasks: list[str], seed: int) -> OutcomeTable:
    """The cheap model is nearly as good on sums and bad on the rest."""
    rng = np.random.default_rng(seed)
    quality_QM = np.array([rng.random(2) < CHANCES[task] for task in tasks]).astype(float)
    num = len(tasks)
    return OutcomeTable(
        queries=[
            Query(id=f"{seed}-{i}", text=f"{WORDS[task]} {seed} {i}", task=task)
            for i, task in enumerate(tasks)
        ],
        candidates=[Candidate(model="cheap"), Candidate(model="dear")],
        query_index=np.repeat(np.arange(num), 2),
        candidate_index=np.tile([0, 1], num),
        quality=quality_QM.ravel(),
        cost_usd=np.tile(USD, num),
    )


TRAIN = make_table(["sums"] * 380 + ["poems"] * 20, 1)


@cache
def made(goal: Goal) -> Deployment:
    """A deployment that steps aside to one model, so that another mix of tasks breaks its word."""
    found = train(TRAIN, goal, router="best_single", seed=0)
    assert found.plan().is_kept
    return found


def said(goal: Goal, test: OutcomeTable) -> list[str]:
    report = study(made(goal), TRAIN, test, num_resamples=50, leakage="skip")
    return [warning for warning in report.warnings if "promise" in warning]


def test_a_missed_floor_is_said_with_its_interval_and_the_tasks_that_moved(tmp_path: Path) -> None:
    goal = Goal(quality_floor=0.8)
    test = make_table(["poems"] * 100 + ["law"] * 100, 2)
    missed, moved = said(goal, test)
    share = 100.0 * test.quality_QM[:, 0].mean() / test.quality_QM[:, 1].mean()
    assert missed.startswith(
        f"promise missed on these queries: {share:.1f}% of the best single model's quality ["
    )
    assert missed.endswith("%], where at least 80.0% was promised")
    assert moved.endswith(
        "of the tasks, 'sums' (95% of the training queries) is missing here; "
        "'law' (50% of the reported queries) is new"
    )
    report = study(made(goal), TRAIN, test, num_resamples=50, leakage="skip")
    assert missed in report.to_text(width=1000)
    assert missed in json.loads(report.to_json())["warnings"]
    assert "promise missed on these queries" in report.to_html(tmp_path / "report.html").read_text()
    row = report["router"].share
    assert row.low is not None
    assert row.high is not None
    assert row.low < share / 100.0 < row.high
    assert report["best single"].share.value == 1.0


def test_a_kept_promise_on_the_same_mix_is_not_talked_about() -> None:
    same = make_table(["sums"] * 190 + ["poems"] * 10, 3)
    assert said(Goal(quality_floor=0.8), same) == []
    assert said(Goal(usd_per_1k=5.0), same) == []


def test_a_missed_cap_is_said_in_usd() -> None:
    same = make_table(["sums"] * 190 + ["poems"] * 10, 4)
    dearer = same.with_costs(50.0 * same.cost_usd)
    (missed,) = said(Goal(usd_per_1k=5.0), dearer)
    assert missed.startswith("promise missed on these queries: ")
    assert missed.endswith("where at most 5 was promised")


def test_where_nothing_was_promised_nothing_is_missed() -> None:
    test = make_table(["poems"] * 100, 5)
    assert said_of(Goal(), test) == said_of(Goal(quality_floor=1.9), test) == []


def said_of(goal: Goal, test: OutcomeTable) -> list[str]:
    found = replace_goal(made(Goal(quality_floor=0.8)), goal)
    report = study(found, TRAIN, test, num_resamples=20, leakage="skip")
    return [warning for warning in report.warnings if "promise" in warning]


def replace_goal(deployment: Deployment, goal: Goal) -> Deployment:
    return Deployment(
        router=deployment.router,
        fallback=deployment.fallback,
        policy=deployment.policy,
        goal=replace(goal),
        frontier=deployment.frontier,
        guard=deployment.guard,
    )
