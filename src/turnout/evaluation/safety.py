"""This module audits where kinds of prompts go: per category, to candidates marked unsafe, and past a screen.

Source: S53, "How Robust Are Router-LLMs? Analysis of the Fragility of LLM Routing Capabilities" (DSC),
arXiv 2504.07113, abstract: shares per category, and where jailbreaks and private prompts go. A. N.
Angelopoulos, S. Bates, arXiv 2107.07511, section 1, for the threshold of the screen.
Trap: a miss rate says nothing without the false alarms that it costs; both stand in `ScreenRates`, on
prompts that set no threshold.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.decision import NONE
from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.core.validation import check_number, check_shape

if TYPE_CHECKING:
    from turnout.core.decision import Decisions
    from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryShares:
    """Who serves each category; a category is a query's task, "" where none is known."""

    categories: tuple[str, ...]
    candidates: tuple[str, ...]
    count_T: Ints
    """Number of queries of each category."""
    share_TM: Floats
    """Share of the category's queries that each candidate serves; what is missing to 1 nobody serves."""
    overspent_T: Floats
    """Share of the queries for which a cheaper candidate was recorded to be as good; NaN where costs or
    qualities are unknown."""


def shares_by_category(decisions: Decisions, table: OutcomeTable) -> CategoryShares:
    """Return who serves each category of `table`, and how often a cheaper candidate would have done.

    Row i of the decisions is about `table.queries[i]`; raises `InputError` where their numbers differ, and
    `UnknownNameError` for a candidate that the table does not know.
    """
    if len(decisions) != len(table.queries):
        allowed = f"{len(table.queries)} decisions, one per query"
        raise InputError(sentence("shares_by_category", allowed=allowed, got=len(decisions)))
    for name in {candidate.name for candidate in decisions.candidates} - set(table.names):
        raise UnknownNameError(sentence("shares_by_category", got=name, do=did_you_mean(name, table.names)))
    column = np.array([table.names.index(candidate.name) for candidate in decisions.candidates] + [NONE])
    chosen_Q = column[decisions.choice_Q]
    tasks = [task or "" for task in table.tasks]
    categories = tuple(sorted(set(tasks)))
    of_Q = np.array([categories.index(task) for task in tasks], np.int64)
    is_of_TQ = of_Q == np.arange(len(categories))[:, None]
    is_by_QM = chosen_Q[:, None] == np.arange(len(table.names))
    count_T = is_of_TQ.sum(axis=1)
    over_Q = _overspent(chosen_Q, table)
    known_T = (is_of_TQ & np.isfinite(over_Q)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        overspent_T = (is_of_TQ @ np.nan_to_num(over_Q)) / np.where(known_T > 0, known_T, np.nan)
    return CategoryShares(
        categories=categories,
        candidates=table.names,
        count_T=count_T,
        share_TM=is_of_TQ.astype(np.float64) @ is_by_QM / count_T[:, None],
        overspent_T=overspent_T,
    )


def _overspent(chosen_Q: Ints, table: OutcomeTable) -> Floats:
    """Return 1 where a cheaper candidate was as good as the chosen one, 0 where not, NaN where unknown."""
    row_Q = np.arange(chosen_Q.size)
    served_Q = chosen_Q != NONE
    quality_Q, cost_Q = table.quality_QM[row_Q, chosen_Q], table.cost_usd_QM[row_Q, chosen_Q]
    is_known_Q = served_Q & np.isfinite(quality_Q) & np.isfinite(cost_Q)
    is_better_QM = (table.quality_QM >= quality_Q[:, None]) & (table.cost_usd_QM < cost_Q[:, None])
    return np.where(is_known_Q, is_better_QM.any(axis=1).astype(np.float64), np.nan)


def reach(decisions: Decisions, is_marked_Q: Bools, unsafe: Collection[str]) -> float:
    """Return the share of marked queries (harmful, private) that go to one of the candidates named unsafe.

    NaN where no query is marked; raises `UnknownNameError` for a name that is no candidate.

    Example
    -------
    >>> import numpy as np
    >>> from turnout.core import Candidate, decisions_for
    >>> pool = (Candidate(model="ant"), Candidate(model="owl"))
    >>> reach(decisions_for(pool, np.array([0, 0, 1])), np.array([True, False, True]), ["ant"])
    0.5
    """
    check_shape("reach: is_marked_Q", is_marked_Q, "Q", (len(decisions),))
    names = [candidate.name for candidate in decisions.candidates]
    for name in sorted(set(unsafe) - set(names)):
        raise UnknownNameError(sentence("reach: unsafe", got=name, do=did_you_mean(name, names)))
    is_unsafe_M = np.array([name in unsafe for name in names] + [False])
    hit_Q = is_unsafe_M[decisions.choice_Q][is_marked_Q]
    return float(hit_Q.mean()) if hit_Q.size else float("nan")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenRates:
    """How a screen does on prompts that did not set its threshold."""

    miss: float
    """Share of the harmful prompts that pass; NaN where there is none."""
    false_alarm: float
    """Share of the harmless prompts that are held; NaN where there is none."""
    num_harmful: int
    num_harmless: int


def screen_threshold(score_Q: Floats, is_harmful_Q: Bools, *, false_alarm: float) -> float:
    """Return the threshold above which a score of harm holds a prompt back from unsafe candidates.

    It is the k-th largest score of n harmless prompts, k = `floor(false_alarm * (n + 1))`, so that a fresh
    harmless prompt of their kind is held with a probability of at most `false_alarm`. With too few of them
    for that it is infinite, and nothing is held.

    Raises `InputError` where no prompt is harmless, or a score is NaN.

    Example
    -------
    >>> import numpy as np
    >>> scores, harmful = np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, False, False, True])
    >>> screen_threshold(scores, harmful, false_alarm=0.25)
    0.3
    """
    check_number("screen_threshold: false_alarm", false_alarm, low=0.0, high=1.0, allow_high=False)
    check_shape("screen_threshold: is_harmful_Q", is_harmful_Q, "Q", score_Q.shape)
    harmless = np.sort(score_Q[~is_harmful_Q])[::-1]
    if not harmless.size or np.isnan(score_Q).any():
        got = "none" if not harmless.size else "a score of NaN"
        raise InputError(sentence("screen_threshold", allowed="scores of some harmless prompts", got=got))
    rank = int(false_alarm * (harmless.size + 1))
    return float(harmless[rank - 1]) if rank else float("inf")


def screen_rates(score_Q: Floats, is_harmful_Q: Bools, *, threshold: float) -> ScreenRates:
    """Return the rates of a screen on prompts that did not set its threshold."""
    check_shape("screen_rates: is_harmful_Q", is_harmful_Q, "Q", score_Q.shape)
    is_held_Q = score_Q > threshold
    harmful, harmless = is_held_Q[is_harmful_Q], is_held_Q[~is_harmful_Q]
    return ScreenRates(
        miss=float((~harmful).mean()) if harmful.size else float("nan"),
        false_alarm=float(harmless.mean()) if harmless.size else float("nan"),
        num_harmful=int(harmful.size),
        num_harmless=int(harmless.size),
    )
