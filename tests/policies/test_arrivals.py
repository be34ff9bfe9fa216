"""A candidate that joins a deployment bypasses neither its guard nor its promise."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import worded_queries, worded_table
from turnout.core import Candidate, Goal, InputError, OutcomeTable, TableError
from turnout.core.artifact import load, save
from turnout.policies import Deployment
from turnout.training import train

NEW = Candidate(model="newcomer")


def table_of(num: int = 300) -> OutcomeTable:
    """Two candidates: one good and dear, one that is right on maths alone and cheap."""
    queries = worded_queries(num, seed=0)
    is_maths_Q = np.array([query.task == "maths" for query in queries])
    rng = np.random.default_rng(0)
    quality_QM = np.stack([rng.random(num) < 0.8, rng.random(num) < np.where(is_maths_Q, 0.95, 0.2)], axis=1)
    usd_QM = np.tile([0.002, 0.0005], (num, 1))
    return worded_table(quality_QM.astype(float), cost_usd=usd_QM)


def probe_of(chance: float, usd: float, *, num: int = 50, with_others: bool = True) -> OutcomeTable:
    """Return probe rows of the newcomer, and those of the others on the same queries."""
    rng = np.random.default_rng(1)
    old = table_of(num)
    quality_QM = np.column_stack([old.quality_QM, (rng.random(num) < chance).astype(float)])
    if not with_others:
        quality_QM[:, :2] = np.nan
    known_N = np.isfinite(quality_QM).ravel()
    return OutcomeTable(
        queries=old.queries,
        candidates=[*old.candidates, NEW],
        query_index=np.repeat(np.arange(num), 3)[known_N],
        candidate_index=np.tile(np.arange(3), num)[known_N],
        quality=quality_QM.ravel()[known_N],
        cost_usd=np.column_stack([old.cost_usd_QM, np.full(num, usd)]).ravel()[known_N],
    )


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return train(table_of(), Goal(quality_floor=0.9), router="ridge")


def share_of(made: Deployment, goal: Goal | None = None) -> float:
    asked = worded_queries(60, seed=8)
    return float(np.mean([name == NEW.name for name in made.decide(asked, goal=goal).names_Q]))


def test_a_lucky_newcomer_of_few_probes_is_estimated_and_not_chosen(deployment: Deployment) -> None:
    before = deployment.fingerprint
    made = deployment.add_candidate(NEW, probe_of(1.0, 0.0001, num=12))
    assert made.candidates[-1] == NEW
    assert deployment.candidates[-1] != NEW
    assert deployment.fingerprint == before != made.fingerprint
    money = (Goal(usd_per_1k=1.0), Goal(usd_per_1k=0.01), Goal(usd_per_1k=50.0), Goal(usd_per_quality=1e-12))
    for goal in (None, Goal(), Goal(usd_per_quality=1.0), *money):
        assert share_of(made, goal) == 0.0
        plan, old = made.plan(goal), deployment.plan(goal)
        assert (plan.text, plan.price, plan.is_open) == (old.text, old.price, old.is_open)
    assert made.verdicts()[NEW.name].count == 12
    estimate = made.estimate(worded_queries(3, seed=8))
    assert np.isfinite(estimate.quality_QM[:, -1]).all()


def test_without_the_others_rows_nothing_is_shown_of_it(deployment: Deployment) -> None:
    made = deployment.add_candidate(NEW, probe_of(1.0, 0.0001, with_others=False))
    assert share_of(made) == 0.0
    assert made.verdicts()[NEW.name].describe() == "no held-out query has what is compared"


def test_one_that_is_shown_to_serve_the_goal_better_may_be_chosen(deployment: Deployment) -> None:
    good = deployment.add_candidate(NEW, probe_of(1.0, 0.0004))
    assert good.verdicts()[NEW.name].is_open
    assert share_of(good) > 0.5
    assert "newcomer keeps at least 90.0%" in good.plan().text
    assert "50 calibration queries" in good.plan().text
    assert good.verdicts(Goal())[NEW.name].is_open
    # Better, and too dear for what the goal asks: it saves nothing.
    dear = deployment.add_candidate(NEW, probe_of(1.0, 0.01))
    assert not dear.verdicts()[NEW.name].is_open
    assert share_of(dear) == 0.0
    # Cheap, and it does not keep the floor.
    bad = deployment.add_candidate(NEW, probe_of(0.3, 0.0001))
    assert not bad.verdicts()[NEW.name].is_open
    assert share_of(bad) == 0.0


def test_it_is_added_in_a_second_saved_and_loaded_with_it(deployment: Deployment, tmp_path: Path) -> None:
    probe = probe_of(1.0, 0.0004)
    started_s = time.perf_counter()
    made = deployment.add_candidate(NEW, probe)
    assert time.perf_counter() - started_s < 1.0
    second = made.add_candidate(Candidate(model="second"), renamed(probe_of(0.5, 0.0004), "second"))
    save(second, tmp_path)
    again = load(tmp_path)
    assert isinstance(again, Deployment)
    assert again.fingerprint == second.fingerprint
    asked = worded_queries(30, seed=8)
    assert again.decide(asked).names_Q == second.decide(asked).names_Q
    assert repr(again.verdicts()) == repr(second.verdicts())
    assert list(second.verdicts()) == [NEW.name, "second"]
    assert second.verdicts()[NEW.name] == made.verdicts()[NEW.name]
    assert [told["name"] for told in second.certificate["newcomers"]] == [NEW.name, "second"]  # type: ignore[attr-defined]


def test_a_known_candidate_and_an_empty_probe_are_refused(deployment: Deployment) -> None:
    with pytest.raises(InputError, match="already in the pool"):
        deployment.add_candidate(deployment.candidates[0], table_of(40))
    blank = probe_of(1.0, 0.0004, num=12)
    none = blank.with_rows(blank.candidate_index < 2)
    with pytest.raises(TableError, match="holds no quality"):
        deployment.add_candidate(NEW, none)


def renamed(probe: OutcomeTable, name: str) -> OutcomeTable:
    return OutcomeTable(
        queries=probe.queries,
        candidates=[*probe.candidates[:-1], Candidate(model=name)],
        query_index=probe.query_index,
        candidate_index=probe.candidate_index,
        quality=probe.quality,
        cost_usd=probe.cost_usd,
    )


def test_a_probe_of_one_query_is_refused_by_its_name(deployment: Deployment) -> None:
    with pytest.raises(InputError, match=r"probe of 'newcomer'; allowed: at least 2.*; got: 1; ask"):
        deployment.add_candidate(NEW, probe_of(1.0, 0.0001, num=1))
    assert not deployment.add_candidate(NEW, probe_of(1.0, 0.0001, num=2)).verdicts()[NEW.name].is_open
