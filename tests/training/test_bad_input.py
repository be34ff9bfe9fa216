"""Tables that break careless training: a sane deployment, or one sentence; never a silent NaN."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.routers.tables import dense_table, worded_queries, worded_table
from turnout.core import Goal, OutcomeTable
from turnout.core.errors import TurnoutError
from turnout.core.query import Query
from turnout.training import train

NUM = 60
ASKED = [Query(id="a", text="how many sheep"), Query(id="b", text=""), Query(id="c", text=None)]
SCRIPTS = (
    "\u4eca\u5929\u5929\u6c14",
    "\u043a\u0430\u043a\u0430\u044f \u043f\u043e\u0433\u043e\u0434\u0430",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
)


def qualities(num: int = NUM, pool: int = 3) -> np.ndarray:
    return (np.random.default_rng(0).random((num, pool)) < 0.6).astype(float)


def one_task() -> OutcomeTable:
    tasks = ["one" if i % 4 == 0 else "two" for i in range(NUM)]
    quality_QM = qualities()
    quality_QM[[task == "two" for task in tasks], 2] = np.nan
    return dense_table(quality_QM, [f"sheep number {i}" for i in range(NUM)], tasks=tasks)


def never() -> OutcomeTable:
    quality_QM = qualities()
    quality_QM[:, 1] = np.nan
    return worded_table(quality_QM)


TABLES = {
    "never observed": never,
    "one task": one_task,
    "all right": lambda: worded_table(np.ones((NUM, 3)), cost_usd=np.full((NUM, 3), 1e-3)),
    "all wrong": lambda: worded_table(np.zeros((NUM, 3)), cost_usd=np.full((NUM, 3), 1e-3)),
    "one query": lambda: worded_table(qualities(1)),
    "constant text": lambda: dense_table(qualities(), ["the same words"] * NUM),
    "free": lambda: worded_table(qualities(), cost_usd=np.zeros((NUM, 3))),
    "other scripts": lambda: dense_table(qualities(), [f"{SCRIPTS[i % 3]} {i}" for i in range(NUM)]),
    "many candidates": lambda: worded_table(qualities(pool=400)),
    "one candidate": lambda: worded_table(qualities(pool=1)),
}


@pytest.mark.parametrize("router", ["auto", "knn", "ridge"])
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("goal", [Goal(), Goal(quality_floor=0.9)], ids=["best", "floor"])
def test_a_deployment_is_sane_or_a_sentence_says_why_not(name: str, router: str, goal: Goal) -> None:
    table = TABLES[name]()
    made, said = None, ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            made = train(table, goal if table.has_costs else Goal(), router=router)
        except TurnoutError as error:
            assert name in {"one query", "constant text"}
            said = str(error)
    if made is None:
        assert "; " in said
        return
    estimate, decisions = made.router.estimate([*table.queries[:5], *ASKED]), made.decide(ASKED)
    assert np.isfinite(estimate.quality_QM).any(axis=1).all()
    known_QM = np.isfinite(estimate.quality_QM)
    assert (estimate.spread_QM[known_QM] > 0.0).all()
    assert np.isfinite(estimate.spread_QM[known_QM]).all()
    assert (decisions.choice_Q >= 0).all()
    plan = made.plan()
    assert 0.0 <= plan.quality <= 1.0
    assert "nan" not in plan.text


@pytest.mark.parametrize("tasks_given", [True, False])
def test_auto_is_unsure_of_a_candidate_on_tasks_from_which_it_was_kept(tasks_given: bool) -> None:
    good_at = {"maths": (0.97, 0.3, 0.5), "code": (0.1, 0.9, 0.5), "story": (0.1, 0.5, 0.9)}
    queries = worded_queries(180, seed=3)
    chance_QM = np.array([good_at[query.task or ""] for query in queries])
    quality_QM = (np.random.default_rng(0).random((180, 3)) < chance_QM).astype(float)
    quality_QM[[query.task != "maths" for query in queries], 0] = np.nan
    table = dense_table(quality_QM, [q.words for q in queries], tasks=[q.task for q in queries])
    made = train(table, tasks_given=tasks_given)
    asked = worded_queries(60, seed=77)
    spread_QM = made.router.estimate(asked).spread_QM
    is_maths_Q = np.array([query.task == "maths" for query in asked])
    there = spread_QM[~is_maths_Q, 0].mean()
    assert there > 0.25
    assert there > 2.0 * spread_QM[is_maths_Q, 0].mean()
