"""A candidate that ran on some tasks alone is chosen on those alone, and judged on every query."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import dense_table, worded_queries
from turnout.core import Candidate, Goal, OutcomeTable
from turnout.core.artifact import load, save
from turnout.core.query import Query
from turnout.policies import Deployment
from turnout.training import train
from turnout.training.study import _deployed
from turnout.training.support import find_support

TRUE = {
    "a": (0.97, 0.4, 0.4, 0.6),
    "b": (0.1, 0.5, 0.5, 0.6),
    "c": (0.1, 0.9, 0.3, 0.5),
    "d": (0.1, 0.3, 0.9, 0.5),
}
GROUPS = [("auto", True), ("auto", False), ("knn", False), ("group_mean", False)]


def text_of(task: str, rng: np.random.Generator) -> str:
    words = [f"common{i}" for i in rng.integers(0, 40, 5)] + [
        f"{task}word{i}" for i in rng.integers(0, 25, 5)
    ]
    return " ".join(words)


@cache
def drawn(num: int = 800, seed: int = 0) -> OutcomeTable:
    """Return a table in which m0 was asked the queries of task a alone, on which it is best by far."""
    rng = np.random.default_rng(seed)
    tasks = ["abcd"[i % 4] for i in range(num)]
    quality_QM = (rng.random((num, 4)) < np.array([TRUE[task] for task in tasks])).astype(float)
    quality_QM[[task != "a" for task in tasks], 0] = np.nan
    texts = [f"{text_of(task, rng)} {i}" for i, task in enumerate(tasks)]
    return dense_table(quality_QM, texts, tasks=tasks)


def asked(task: str, *, is_told: bool, num: int = 100) -> list[Query]:
    rng = np.random.default_rng(9)
    return [Query(id=f"z{i}", text=text_of(task, rng), task=task if is_told else None) for i in range(num)]


def shares_of_first(deployment: Deployment, *, is_told: bool) -> dict[str, float]:
    return {
        task: float((deployment.decide(asked(task, is_told=is_told)).choice_Q == 0).mean()) for task in TRUE
    }


@pytest.mark.parametrize(("router", "tasks_given"), GROUPS)
def test_a_candidate_of_one_task_serves_that_task_alone(router: str, tasks_given: bool) -> None:
    deployment = train(drawn(), Goal(), router=router, tasks_given=tasks_given)
    share = shares_of_first(deployment, is_told=tasks_given or router == "group_mean")
    assert max(share[task] for task in "bcd") <= 0.05
    assert share["a"] >= 0.8
    plan, notes = deployment.plan(), deployment.certificate["notes"]
    assert isinstance(notes, list | tuple)
    assert plan.is_open
    assert plan.verdict is not None
    # Every held-out query counts, those included on which the candidate was not run.
    assert plan.verdict.count >= 300
    assert list(notes) == [
        "'m0' was observed on 25% of the queries, all of task 'a'; it is offered only to queries like those; "
        "ask it some tens of the others and fit again"
    ]


def test_what_is_promised_comes_true() -> None:
    deployment = train(drawn(), Goal())
    mean = np.mean(
        [
            np.mean([TRUE[task][choice] for choice in deployment.decide(asked(task, is_told=False)).choice_Q])
            for task in TRUE
        ]
    )
    assert deployment.plan().quality == pytest.approx(float(mean), abs=0.05)


@pytest.mark.parametrize("goal", [Goal(), Goal(quality_floor=0.9)], ids=["best", "floor"])
def test_behind_a_closed_guard_it_serves_nothing_else_either(goal: Goal) -> None:
    """The pool is m0 and one that is middling everywhere; no text, so that nothing but the task tells."""
    rng, num = np.random.default_rng(0), 600
    tasks = ["abcd"[i % 4] for i in range(num)]
    quality_QM = (rng.random((num, 2)) < (0.9, 0.5)).astype(float)
    quality_QM[[task != "a" for task in tasks], 0] = np.nan
    table = dense_table(
        quality_QM, [f"common {i}" for i in range(num)], tasks=tasks, cost_usd=np.full((num, 2), (1e-4, 1e-3))
    )
    deployment = train(table, goal, tasks_given=True)
    for task in "bcd":
        queries = [Query(id=f"z{i}", text=f"common x{i}", task=task) for i in range(20)]
        assert (deployment.decide(queries).choice_Q == 1).all()


def test_the_mask_is_kept_by_an_artifact_and_lets_a_newcomer_in(tmp_path: Path) -> None:
    deployment = train(drawn(), Goal())
    save(deployment, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert isinstance(again, Deployment)
    queries = asked("b", is_told=False)
    np.testing.assert_array_equal(again.decide(queries).choice_Q, deployment.decide(queries).choice_Q)
    assert again.fingerprint == deployment.fingerprint
    assert again.support is not None
    assert not again.support.allowed(queries)[:, 0].any()
    assert again.support.allowed(queries, 5)[:, 4].all()


def test_the_curve_of_a_report_is_of_the_same_choices() -> None:
    table = drawn()
    is_train_Q = np.arange(len(table.queries)) < 600
    train_part, test_part = table.where(is_train_Q), table.where(~is_train_Q)
    run = _deployed(train(train_part, Goal()), test_part, 5, 0)
    assert run.chosen is not None
    np.testing.assert_array_equal(run.sweep[0].choice_Q, run.chosen.choice_Q)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
def test_cells_that_are_missing_at_random_mask_nobody(share: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        quality_QM = np.where(rng.random((400, 20)) < share, 1.0, np.nan)
        queries = worded_queries(400, seed=seed)
        row, column = np.nonzero(np.isfinite(quality_QM))
        table = OutcomeTable(
            queries=queries,
            candidates=[Candidate(model=f"m{j}") for j in range(20)],
            query_index=row,
            candidate_index=column,
            quality=quality_QM[row, column],
        )
        assert find_support(table, None, reads_tasks=True) is None


def test_a_candidate_that_ran_less_often_on_some_tasks_is_not_masked() -> None:
    table = drawn()
    rng = np.random.default_rng(0)
    full_QM = np.nan_to_num(table.quality_QM)
    chance_Q = np.array([0.8 if task == "a" else 0.2 for task in table.tasks])
    full_QM[rng.random(chance_Q.size) > chance_Q, 0] = np.nan
    again = dense_table(full_QM, [query.text or "" for query in table.queries], tasks=list(table.tasks))
    assert find_support(again, None, reads_tasks=True) is None
