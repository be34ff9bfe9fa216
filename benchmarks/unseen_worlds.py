"""This module makes outcome tables that nobody has seen, for judging `auto` where nothing was tuned.

A procedural world has candidates of an ability each and a skill per latent topic, queries of a difficulty
each, and texts whose label tells the topic (`unseen_texts`):

    chance_QM = sigmoid(ability_m + signal skill_m[topic(label_q)] - difficulty_q)

What was observed for training is drawn from that; the held-out queries are drawn in full, and their true
chances are kept, so that a choice is judged without noise as well. A recombined world takes recorded
outcomes instead: some candidates of a table, some of its queries, some of its cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.unseen_texts import texts
from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.outcomes import Bools, Floats
from turnout.core.rng import make_rng
from turnout.evaluation import dense_part, near_duplicates


@dataclass(frozen=True, kw_only=True, slots=True)
class Regime:
    """What kind of table it is."""

    name: str
    source: str
    """A corpus of `unseen_texts`, or the name of an outcome table to recombine."""
    is_recorded: bool = False
    num_queries: int = 2_000
    """Of training; as many as the table has, where that is less."""
    num_test: int = 2_000
    num_candidates: int = 8
    num_topics: int = 12
    signal: float = 0.8
    """Deviation of a candidate's skill between topics, in logits; 0 leaves nothing to be learned."""
    abilities: Literal["ladder", "equal", "dominant", "dominated"] = "ladder"
    difficulty: float = 1.0
    """Deviation of difficulty between queries; half of its variance hangs on the label."""
    kind: Literal["binary", "graded", "preference"] = "binary"
    fill: float = 1.0
    missing: Literal["random", "by_topic", "by_failure", "by_candidate"] = "random"
    tasks: Literal["none", "topic", "label", "noisy"] = "none"
    prices: Literal["ladder", "flat", "adverse", "heavy", "none", "some"] = "ladder"
    script: str | None = None
    repeats: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A training table, held-out outcomes, and what is true of them."""

    train: OutcomeTable
    test: OutcomeTable
    truth_QM: Floats
    """Expected quality of the held-out cells; the recorded one of a recombined world."""


def make_world(regime: Regime, seed: int, table: OutcomeTable | None = None) -> World:
    """Return the world of a regime; `table` is what a recombined one is taken from."""
    rng = make_rng(seed, "unseen", regime.name)
    if regime.is_recorded:
        assert table is not None
        return _recombined(regime, table, rng)
    return _procedural(regime, rng)


def _procedural(regime: Regime, rng: np.random.Generator) -> World:
    num = regime.num_queries + regime.num_test
    words, labels = texts(regime.source, num, rng, script=regime.script, repeats=regime.repeats)
    names = sorted(set(labels))
    label_Q = np.array([names.index(label) for label in labels])
    topic_L = rng.integers(0, regime.num_topics, size=len(names))
    topic_Q = topic_L[label_Q]
    ability_M = _abilities(regime, rng)
    skill_MZ = regime.signal * rng.standard_normal((ability_M.size, regime.num_topics))
    if regime.abilities == "dominated":
        skill_MZ[-1] = -np.abs(skill_MZ[-1]) - 1.0
    half = np.sqrt(0.5)
    hard_Q = regime.difficulty * half * (rng.standard_normal(len(names))[label_Q] + rng.standard_normal(num))
    logit_QM = ability_M + skill_MZ[:, topic_Q].T - hard_Q[:, None]
    if regime.kind == "preference":
        # The first candidate is what the others are compared with.
        logit_QM = logit_QM - logit_QM[:, :1]
    chance_QM = 1.0 / (1.0 + np.exp(-logit_QM))
    quality_QM = _draw(regime, chance_QM, rng)
    usd_QM = _costs(regime, words, rng)
    tasks = _tasks(regime, names, label_Q, topic_Q, rng)
    queries = [
        Query(id=f"q{row}", text=text, task=task)
        for row, (text, task) in enumerate(zip(words, tasks, strict=True))
    ]
    is_train_Q = _apart(queries, regime.num_queries, rng)
    seen_QM = _observed(regime, quality_QM, topic_Q, rng)
    whole_QM = np.ones_like(seen_QM)
    candidates = [Candidate(model=f"m{index:02d}") for index in range(ability_M.size)]
    return World(
        train=_table(queries, candidates, quality_QM, usd_QM, seen_QM & is_train_Q[:, None], is_train_Q),
        test=_table(queries, candidates, quality_QM, usd_QM, whole_QM & ~is_train_Q[:, None], ~is_train_Q),
        truth_QM=chance_QM[~is_train_Q],
    )


def _abilities(regime: Regime, rng: np.random.Generator) -> Floats:
    num = regime.num_candidates
    if regime.abilities == "equal":
        return np.asarray(0.5 + 0.02 * rng.standard_normal(num))
    ability_M = np.linspace(-0.8, 1.2, num) + 0.1 * rng.standard_normal(num)
    if regime.abilities == "dominant":
        ability_M[-2] += 1.5 + 2.0 * regime.signal
    return np.asarray(ability_M)


def _draw(regime: Regime, chance_QM: Floats, rng: np.random.Generator) -> Floats:
    if regime.kind == "binary":
        return (rng.random(chance_QM.shape) < chance_QM).astype(np.float64)
    sharpness = 6.0 if regime.kind == "graded" else 1.5
    inside_QM = np.clip(chance_QM, 0.02, 0.98)
    found_QM = rng.beta(sharpness * inside_QM, sharpness * (1.0 - inside_QM))
    if regime.kind == "preference":
        found_QM[:, 0] = 0.5
    return np.asarray(found_QM)


def _costs(regime: Regime, words: list[str], rng: np.random.Generator) -> Floats | None:
    num = regime.num_candidates
    if regime.prices == "none":
        return None
    rank_M = np.linspace(0.0, 1.0, num)
    if regime.prices == "adverse":
        rank_M = rank_M[::-1]
    usd_M = np.full(num, 1e-3) if regime.prices == "flat" else 1e-4 * 100.0**rank_M
    length_Q = np.array([len(text) for text in words], np.float64)
    heavy = 1.5 if regime.prices == "heavy" else 0.3
    noise_QM = np.exp(heavy * rng.standard_normal((len(words), num)) - heavy**2 / 2.0)
    usd_QM = usd_M * (0.5 + 0.5 * length_Q / length_Q.mean())[:, None] * noise_QM
    if regime.prices == "some":
        usd_QM[:, ::3] = np.nan
    return np.asarray(usd_QM)


def _tasks(
    regime: Regime,
    names: list[str],
    label_Q: np.ndarray,
    topic_Q: np.ndarray,
    rng: np.random.Generator,
) -> list[str | None]:
    if regime.tasks == "none":
        return [None] * label_Q.size
    if regime.tasks == "label":
        return [names[label] for label in label_Q.tolist()]
    told_Q = topic_Q.copy()
    if regime.tasks == "noisy":
        is_wrong_Q = rng.random(told_Q.size) < 0.3
        told_Q[is_wrong_Q] = rng.integers(0, regime.num_topics, size=int(is_wrong_Q.sum()))
    return [f"task{topic}" for topic in told_Q.tolist()]


def _apart(queries: list[Query], num_train: int, rng: np.random.Generator) -> Bools:
    """Return which queries train, so that near-same texts lie on one side."""
    group_Q = np.asarray(near_duplicates([query.words for query in queries], seed=0))
    order = rng.permutation(int(group_Q.max()) + 1)
    rank_Q = order[group_Q]
    sizes = np.bincount(rank_Q)
    num_groups = int(np.searchsorted(np.cumsum(sizes), num_train)) + 1
    return np.asarray(rank_Q < num_groups)


def _observed(regime: Regime, quality_QM: Floats, topic_Q: np.ndarray, rng: np.random.Generator) -> Bools:
    """Return which cells were run; every candidate and every query keeps some."""
    shape, fill = quality_QM.shape, regime.fill
    if fill >= 1.0:
        return np.ones(shape, np.bool_)
    chance_QM = np.full(shape, fill)
    if regime.missing == "by_topic":
        # Each candidate was run mostly on some topics: means over what was run are no fair comparison.
        often_ZM = rng.random((int(topic_Q.max()) + 1, shape[1])) < fill
        chance_QM = np.where(often_ZM[topic_Q], 0.9, 0.1)
    elif regime.missing == "by_failure":
        chance_QM = np.clip(fill + 0.3 * (quality_QM - quality_QM.mean()), 0.05, 0.95)
    elif regime.missing == "by_candidate":
        chance_QM = np.broadcast_to(np.linspace(0.1, min(2.0 * fill - 0.1, 1.0), shape[1]), shape)
    seen_QM = rng.random(shape) < chance_QM
    empty = np.flatnonzero(~seen_QM.any(axis=1))
    seen_QM[empty, rng.integers(0, shape[1], size=empty.size)] = True
    return np.asarray(seen_QM)


def _table(
    queries: list[Query],
    candidates: list[Candidate],
    quality_QM: Floats,
    usd_QM: Floats | None,
    seen_QM: Bools,
    is_mine_Q: Bools,
) -> OutcomeTable:
    row, column = np.nonzero(seen_QM)
    renumber = np.cumsum(is_mine_Q) - 1
    return OutcomeTable(
        queries=[query for query, is_mine in zip(queries, is_mine_Q.tolist(), strict=True) if is_mine],
        candidates=candidates,
        query_index=renumber[row],
        candidate_index=column,
        quality=quality_QM[row, column],
        cost_usd=None if usd_QM is None else usd_QM[row, column],
    )


def _recombined(regime: Regime, table: OutcomeTable, rng: np.random.Generator) -> World:
    """Return some candidates, queries and cells of recorded outcomes."""
    table = dense_part(table)
    num = min(regime.num_candidates, len(table.candidates))
    names = [table.names[index] for index in sorted(rng.permutation(len(table.candidates))[:num].tolist())]
    table = table.select(candidates=names)
    half = len(table.queries) // 2
    is_train_Q = _apart(list(table.queries), min(regime.num_queries, half), rng)
    others = rng.permutation(np.flatnonzero(~is_train_Q))[: regime.num_test]
    is_test_Q = np.zeros(is_train_Q.size, np.bool_)
    is_test_Q[others] = True
    task_Q = np.unique([task or "" for task in table.tasks], return_inverse=True)[1]
    seen_QM = _observed(regime, np.nan_to_num(table.quality_QM), task_Q, rng)
    queries = list(table.queries)
    if regime.tasks == "none":
        queries = [replace(query, task=None) for query in queries]
    quality_QM, candidates = table.quality_QM, list(table.candidates)
    usd_QM = table.cost_usd_QM if table.has_costs and regime.prices != "none" else None
    known_QM = np.isfinite(quality_QM)
    train_QM, test_QM = seen_QM & known_QM & is_train_Q[:, None], known_QM & is_test_Q[:, None]
    return World(
        train=_table(queries, candidates, quality_QM, usd_QM, train_QM, is_train_Q),
        test=_table(queries, candidates, quality_QM, usd_QM, test_QM, is_test_Q),
        truth_QM=quality_QM[is_test_Q],
    )
