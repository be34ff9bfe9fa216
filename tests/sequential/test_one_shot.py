"""A deployment in the loop decides as it does outside of it, and falls back down its own ranking."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Candidate, Goal, InputError, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter
from turnout.sequential import Bounds, OneShot, ReplayEnvironment, run


def table(*, without: str | None = None) -> OutcomeTable:
    """Return three candidates on two queries; one column can be left out."""
    names = ("good", "fair", "poor")
    rows = [(q, m) for q in range(2) for m in range(3) if names[m] != without]
    return OutcomeTable(
        queries=[Query(id=f"q{q}", text=f"text {q}") for q in range(2)],
        candidates=[Candidate(model=name) for name in names],
        query_index=[q for q, _ in rows],
        candidate_index=[m for _, m in rows],
        quality=[(0.9, 0.6, 0.2)[m] for _, m in rows],
        cost_usd=[(0.3, 0.1, 0.01)[m] for _, m in rows],
    )


def deployment() -> Deployment:
    """Return the best single model as a deployment."""
    router = BestSingleRouter().fit(table())
    return Deployment(router=router, fallback=router, policy=Best(), goal=Goal())


def test_the_choice_is_the_deployments() -> None:
    world = ReplayEnvironment(table(), independent=True)
    for goal, quality in ((None, 0.9), (Goal(usd_per_quality=0.3), 0.6), (Goal(usd_per_quality=0.01), 0.2)):
        outcome = run(world, OneShot(deployment=deployment(), goal=goal), table().queries[0])
        assert (outcome.quality, outcome.trace.num_calls, outcome.trace.steps) == (quality, 1, 2)


def test_a_failure_moves_down_the_ranking() -> None:
    world = ReplayEnvironment(table(without="good"), independent=True, costs=table())
    outcome = run(world, OneShot(deployment=deployment()), table().queries[1])
    assert [seen.call.candidate for seen in outcome.trace.observed] == ["good", "fair"]
    assert outcome.quality == 0.6


def test_what_the_budget_cannot_pay_is_not_chosen() -> None:
    world = ReplayEnvironment(table(), independent=True)
    outcome = run(world, OneShot(deployment=deployment()), table().queries[0], bounds=Bounds(usd=0.2))
    assert outcome.quality == 0.6


def test_it_is_saved_with_its_deployment(tmp_path: object) -> None:
    sequencer = load(save(OneShot(deployment=deployment()), f"{tmp_path}/artifact"))
    assert isinstance(sequencer, OneShot)
    world = ReplayEnvironment(table(), independent=True)
    assert run(world, sequencer, table().queries[0]).quality == 0.9
    assert np.isfinite(sequencer.deployment.estimate(table().queries).quality_QM).all()


def test_it_takes_a_deployment() -> None:
    with pytest.raises(InputError, match=r"OneShot\.deployment"):
        OneShot(deployment="knn")  # type: ignore[arg-type]
