"""This module recruits a team of experts for each query, asks them all at once, and merges their answers.

Source: S173, J. Chen et al., "Symbolic Mixture-of-Experts", arXiv 2503.05641 (abstract), and its code,
github.com/dinobby/Symbolic-MoE at d6c2e0d (`recruit_agents`, `get_model_replacement`, `aggregate.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Protocol, final, runtime_checkable

import numpy as np

from turnout.core.contracts import Router
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_name, check_number
from turnout.sequential.actions import Abstain, Call, CallSet, Choice, Stop
from turnout.sequential.contracts import Sequencer
from turnout.sequential.trace import Observed, Trace

_PROMPT = (
    "Several models answered the question below. Weigh their answers, some of which may be wrong, and write "
    "one answer of your own.\n\nQuestion: {question}\n"
)


@runtime_checkable
class Suits(Protocol):
    """Says with what weight to recruit; `turnout.routers.SkillsRouter` does."""

    def suitability(self, queries: Sequence[Query]) -> Floats:
        """Return weights of at least 0, shape (Q, M), NaN for who is unknown."""


@final
class Recruit(Sequencer):
    """Asks k different experts side by side, then stops by vote or lets an aggregator write the answer.

    Experts are drawn in proportion to the router's `suitability`, or to its estimated quality where it has
    none; one never comes twice (the published code draws with replacement, and a team of three may be one
    model three times). The aggregator of the paper is the model that did best on a synthetic task; whoever
    it is, name it here. Its request quotes the answers, so it cannot be replayed from a table.

    Parameters
    ----------
    router:
        A fitted router whose candidates have the names of the pool's; the others are never called.
    k:
        Size of the team.
    aggregator:
        Name of the candidate that merges the answers; None is a vote.
    is_random:
        Whether experts are drawn; False takes the most suitable ones.
    """

    def __init__(
        self, *, router: Router, k: int = 3, aggregator: str | None = None, is_random: bool = True
    ) -> None:
        check_kind("Recruit.router", router, Router)
        self.router = router
        self.k = check_count("Recruit.k", k, high=6)
        if aggregator is not None:
            check_name("Recruit.aggregator", aggregator)
        self.aggregator = aggregator
        self.is_random = bool(is_random)

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the team, then the request to the aggregator, then the end."""
        if not trace.observed:
            names, weight_M = self._weights([trace.query])
            allowed = [at for at, name in enumerate(names) if name in trace.admissible]
            team, propensity = self._team(weight_M[0, allowed], rng)
            if not team:
                return Choice(action=Abstain(why="nobody may serve"))
            calls = tuple(Call(candidate=names[allowed[at]]) for at in team)
            return Choice(action=CallSet(calls=calls), propensity=propensity, reason="recruited")
        answered = [seen for seen in trace.observed if seen.error is None]
        is_merged = bool(trace.observed) and trace.observed[-1].call.text is not None
        if self.aggregator is None or is_merged or len(answered) < 2:
            last = is_merged and trace.observed[-1].error is None
            return Choice(action=Stop(aggregate="last" if last else "vote"), reason="merged")
        if self.aggregator not in trace.admissible:
            return Choice(action=Stop(aggregate="vote"), reason="the aggregator may not be called")
        text = merging(trace.query, answered)
        return Choice(action=Call(candidate=self.aggregator, text=text), reason="aggregate")

    def teams(
        self, queries: Sequence[Query], rng: np.random.Generator, *, least_share: float = 0.05
    ) -> list[tuple[str, ...]]:
        """Return the team of each query of a batch, best suited first where teams are not drawn.

        An expert that would come in less than `least_share` of all places is not worth loading: its places
        go to the others, in proportion to how often they come.
        """
        check_number("Recruit.teams: least_share", least_share, low=0.0, high=1.0)
        names, weight_QM = self._weights(queries)
        teams = [[names[at] for at in self._team(weight_M, rng)[0]] for weight_M in weight_QM]
        count = Counter(name for team in teams for name in team)
        often = [name for name in names if count[name] >= least_share * count.total() and count[name]]
        if not often:
            return [tuple(team) for team in teams]
        return [tuple(self._replaced(team, often, count, rng)) for team in teams]

    def _replaced(
        self, team: list[str], often: list[str], count: Counter[str], rng: np.random.Generator
    ) -> list[str]:
        kept = [name for name in team if name in often]
        free = [name for name in often if name not in kept]
        wanted = min(len(team) - len(kept), len(free))
        if wanted:
            share = np.array([count[name] for name in free], np.float64)
            kept += rng.choice(free, wanted, replace=False, p=share / share.sum()).tolist()
        return kept

    def _weights(self, queries: Sequence[Query]) -> tuple[tuple[str, ...], Floats]:
        estimate = self.router.estimate(queries)
        weight_QM = estimate.quality_QM
        if isinstance(self.router, Suits):
            weight_QM = self.router.suitability(queries)
        return estimate.names, np.maximum(np.nan_to_num(weight_QM), 0.0)

    def _team(self, weight_M: Floats, rng: np.random.Generator) -> tuple[list[int], float]:
        """Return who is on the team, and with what probability it is this team."""
        k = min(self.k, weight_M.size)
        best = np.argsort(-weight_M, kind="stable")
        likely = best[weight_M[best] > 0.0]
        if not self.is_random or likely.size <= k:
            return best[:k].tolist(), 1.0
        share = weight_M[likely] / weight_M[likely].sum()
        drawn = rng.choice(likely.size, k, replace=False, p=share)
        return likely[drawn].tolist(), set_probability(share[drawn])


def set_probability(share_K: Floats) -> float:
    """Return the probability that draws without replacement, in any order, are these K of shares p."""
    total = 0.0
    for order in permutations(share_K.tolist()):
        term, left = 1.0, 1.0
        for share in order:
            term, left = term * share / max(left, 1e-300), left - share
        total += term
    return min(max(total, 1e-300), 1.0)


def merging(query: Query, answered: Sequence[Observed]) -> str:
    """Return what the aggregator is asked: the question and the answers, by number and without names."""
    parts = [f"\nAnswer {number}:\n{seen.answer or ''}\n" for number, seen in enumerate(answered, start=1)]
    return _PROMPT.format(question=query.words) + "".join(parts)


def by_expert(teams: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Return the queries of each expert, in order: load it, ask it all of them, and go on to the next."""
    places: dict[str, list[int]] = {}
    for number, team in enumerate(teams):
        for name in team:
            places.setdefault(name, []).append(number)
    return {name: places[name] for name in sorted(places)}


def ask_by_expert(
    queries: Sequence[Query],
    teams: Sequence[Sequence[str]],
    ask: Callable[[str, Sequence[Query]], Sequence[str]],
) -> list[dict[str, str]]:
    """Return every team's answers by name, each expert asked once, with all of its queries."""
    answers: list[dict[str, str]] = [{} for _ in queries]
    for name, rows in by_expert(teams).items():
        for row, answer in zip(rows, ask(name, [queries[row] for row in rows]), strict=True):
            answers[row][name] = answer
    return answers
