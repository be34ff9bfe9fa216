"""Recruiting: who comes how often and never twice, merging, and batches that load each expert once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from turnout.core import Candidate, InputError, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.routers import GroupMeanRouter, SkillsRouter
from turnout.sequential import (
    Abstain,
    Bounds,
    CallSet,
    Choice,
    Recruit,
    ReplayEnvironment,
    ask_by_expert,
    by_expert,
    run,
)
from turnout.sequential.actions import Call, Stop
from turnout.sequential.recruit import set_probability
from turnout.sequential.trace import Chosen, Observed, Started, Trace

NAMES = ("ant", "bee", "cat", "dog")
QUALITY = {"algebra": (1.0, 0.9, 0.8, 0.0), "prose": (0.0, 0.7, 0.2, 1.0)}
ANSWERS = ("4", "4", "five", "six")


def table() -> OutcomeTable:
    """Return four candidates on forty queries of two skills, with what they answered."""
    tasks = ["algebra", "prose"]
    return OutcomeTable(
        queries=[
            Query(id=f"q{i}", text=f"text {i}", task=tasks[i % 2], tags={"skills": tasks[i % 2]})
            for i in range(40)
        ],
        candidates=[Candidate(model=name) for name in NAMES],
        query_index=np.repeat(np.arange(40), 4),
        candidate_index=np.tile(np.arange(4), 40),
        quality=np.array([QUALITY[tasks[i % 2]] for i in range(40)]).ravel(),
        cost_usd=np.ones(160),
        extras={"answer": ANSWERS * 40},
    )


def trace(query: Query, *seen: Observed, candidates: tuple[str, ...] = NAMES) -> Trace:
    """Return a trace in which these calls were answered."""
    found = Trace(Started(query=query, candidates=candidates, bounds=Bounds(), seed=0))
    for event in seen:
        found.append(Chosen(choice=Choice(action=event.call)))
        found.append(event)
    return found


RNG = np.random.default_rng(0)
ROUTER = SkillsRouter().fit(table())
ALGEBRA, PROSE = table().queries[:2]


def team(recruit: Recruit, query: Query, rng: np.random.Generator) -> tuple[tuple[str, ...], float]:
    choice = recruit.next(trace(query), rng)
    assert isinstance(choice.action, CallSet)
    return tuple(call.candidate for call in choice.action.calls), choice.propensity


def test_a_set_is_as_likely_as_its_orders_together() -> None:
    share = np.array([0.5, 0.3, 0.15, 0.05])
    assert set_probability(share[:2]) == pytest.approx(0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7)
    for k in (1, 2, 3, 4):
        total = sum(set_probability(share[list(chosen)]) for chosen in combinations(range(4), k))
        assert total == pytest.approx(1.0)


def test_experts_come_as_often_as_their_propensity_says_and_never_twice() -> None:
    recruit, rng = Recruit(router=ROUTER, k=2), np.random.default_rng(0)
    drawn: Counter[frozenset[str]] = Counter()
    said: dict[frozenset[str], float] = {}
    for _ in range(2_000):
        names, propensity = team(recruit, ALGEBRA, rng)
        assert len(set(names)) == 2
        drawn[frozenset(names)] += 1
        said[frozenset(names)] = propensity
    assert sum(said.values()) == pytest.approx(1.0, abs=0.01)
    for found, propensity in said.items():
        assert drawn[found] / 2_000 == pytest.approx(propensity, abs=0.04)
    # More wrong than right on algebra: never on the team.
    assert not any("dog" in names for names in said)


def test_each_query_gets_the_experts_of_its_own_skills() -> None:
    recruit = Recruit(router=ROUTER, k=2, is_random=False)
    assert set(team(recruit, ALGEBRA, RNG)[0]) == {"ant", "bee"}
    assert set(team(recruit, PROSE, RNG)[0]) == {"bee", "dog"}
    # Any router serves: without skills its estimated quality is the weight.
    task = Recruit(router=GroupMeanRouter(prior=0.1).fit(table()), k=1, is_random=False)
    assert [team(task, query, RNG)[0] for query in (ALGEBRA, PROSE)] == [("ant",), ("dog",)]


def test_the_answers_are_merged_by_vote() -> None:
    world = ReplayEnvironment(table(), independent=True)
    outcome = run(world, Recruit(router=ROUTER, k=3, is_random=False), ALGEBRA)
    assert {seen.call.candidate for seen in outcome.trace.observed} == {"ant", "bee", "cat"}
    assert outcome.trace.steps == 2
    assert outcome.answer == "4"


def test_an_aggregator_reads_the_answers_without_the_names_and_has_the_last_word() -> None:
    recruit = Recruit(router=ROUTER, k=2, aggregator="cat", is_random=False)
    seen = [
        Observed(call=Call(candidate=name), answer=f"said {i}", usd=0.0)
        for i, name in enumerate(("ant", "bee"))
    ]
    choice = recruit.next(trace(ALGEBRA, *seen), RNG)
    assert isinstance(choice.action, Call)
    assert choice.action.candidate == "cat"
    text = choice.action.text
    assert text is not None
    assert "text 0" in text
    assert text.index("said 0") < text.index("said 1")
    assert "ant" not in text.replace("want", "")
    merged = Observed(call=choice.action, answer="both", usd=0.0)
    end = recruit.next(trace(ALGEBRA, *seen, merged), RNG).action
    assert isinstance(end, Stop)
    assert end.aggregate == "last"
    failed = Observed(call=choice.action, answer=None, usd=0.0, error="down")
    end = recruit.next(trace(ALGEBRA, *seen, failed), RNG).action
    assert isinstance(end, Stop)
    assert end.aggregate == "vote"


def test_nobody_is_no_team() -> None:
    assert isinstance(Recruit(router=ROUTER).next(trace(ALGEBRA, candidates=("elk",)), RNG).action, Abstain)


def test_a_batch_loads_each_expert_once_and_drops_who_is_rarely_wanted() -> None:
    recruit, queries = Recruit(router=ROUTER, k=2), table().queries
    teams = recruit.teams(queries, np.random.default_rng(0), least_share=0.0)
    assert all(len(set(team)) == 2 for team in teams)
    count = Counter(name for team in teams for name in team)
    often = {name for name, num in count.items() if num > min(count.values())}
    share = min(count.values()) / count.total() + 1e-9
    trimmed = recruit.teams(queries, np.random.default_rng(0), least_share=share)
    assert len(often) >= 2
    for before, after in zip(teams, trimmed, strict=True):
        assert len(set(after)) == 2
        assert set(before) & often <= set(after) <= often
    plan = by_expert(teams)
    for name, rows in plan.items():
        assert rows == [number for number, team in enumerate(teams) if name in team]
    loaded: list[str] = []

    def ask(name: str, asked: Sequence[Query]) -> list[str]:
        loaded.append(name)
        return [f"{name} on {query.id}" for query in asked]

    answers = ask_by_expert(queries, teams, ask)
    assert loaded == sorted(set(loaded))
    for query, members, found in zip(queries, teams, answers, strict=True):
        assert found == {name: f"{name} on {query.id}" for name in members}


def test_an_artifact_recruits_alike_and_settings_are_checked(tmp_path: Path) -> None:
    save(Recruit(router=ROUTER, k=2, is_random=False), tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, Recruit)
    assert team(loaded, PROSE, RNG) == team(Recruit(router=ROUTER, k=2, is_random=False), PROSE, RNG)
    with pytest.raises(InputError, match=r"Recruit\.k"):
        Recruit(router=ROUTER, k=0)
    with pytest.raises(InputError, match=r"Recruit\.router"):
        Recruit(router="skills")  # type: ignore[arg-type]
