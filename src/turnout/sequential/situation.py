"""This module describes a task so far in numbers: the query, who was asked, what came back, what is left.

Letters: D features of the state, K features that every action has, A actions (M calls, then the stop).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from turnout.core.outcomes import Floats
from turnout.sequential.softmax import Situation
from turnout.sequential.trace import Observed, Trace

NUM_STATE = 7
"""Features of the state besides the query, the signals and who was asked."""
NUM_SHARED = 6
MAX_ROUNDS = 4.0
"""Numbers of rounds are given as a share of this one."""


class Prior:
    """What is known of a query before the first call: its vector, and the expected quality and utility."""

    __slots__ = ("quality_M", "utility_M", "x_F")

    def __init__(self, x_F: Floats, quality_M: Floats, utility_M: Floats) -> None:
        self.x_F = x_F
        self.quality_M = quality_M
        self.utility_M = utility_M


def describe(
    trace: Trace,
    prior: Prior,
    *,
    column: Mapping[str, int],
    signals: Sequence[str],
    scores: Sequence[float],
    max_samples: int,
) -> Situation:
    """Return the situation of a trace; `scores` are those of `trace.observed`, in order."""
    asked = [0] * len(column)
    answered = []
    for observed in trace.observed:
        if observed.call.candidate in column:
            asked[column[observed.call.candidate]] += 1
        if observed.error is None:
            answered.append(observed)
    allowed = [False] * (len(column) + 1)
    for name in trace.admissible:
        m = column.get(name)
        if m is not None and asked[m] < max_samples:
            allowed[m] = True
    # A task without any answer is not ended while somebody can still be asked.
    allowed[-1] = bool(answered) or True not in allowed
    numbers = [*_history(trace, answered, scores), *_signals(answered, signals), *asked]
    state_D = np.empty(len(numbers) + prior.x_F.size)
    state_D[: len(numbers)] = numbers
    state_D[len(numbers) :] = prior.x_F
    action_AK = _actions(prior, np.array(asked), answered, scores, column)
    return Situation(state_D, action_AK, np.array(allowed))


def num_state(num_candidates: int, num_signals: int, width: int) -> int:
    """Return D."""
    return NUM_STATE + 2 * num_signals + num_candidates + width


def agreement(answered: Sequence[Observed]) -> tuple[float, float]:
    """Return the share of the most frequent answer, and whether the last answer is that one.

    (0, 0) where fewer than two texts are known: one answer agrees with nobody.
    """
    texts = [" ".join(item.answer.casefold().split()) for item in answered if item.answer is not None]
    if len(texts) < 2:
        return 0.0, 0.0
    votes = Counter(texts)
    most = max(votes.values())
    if most == 1:
        return 0.0, 0.0
    return most / len(texts), float(votes[texts[-1]] == most)


def _history(trace: Trace, answered: Sequence[Observed], scores: Sequence[float]) -> list[float]:
    share, is_last = agreement(answered)
    usd = trace.bounds.usd
    left = 1.0 if not usd else trace.remaining_usd / usd
    return [
        1.0,
        float(bool(answered)),
        len(trace.observed) / MAX_ROUNDS,
        left,
        share,
        is_last,
        scores[-1] if scores else 0.0,
    ]


def _signals(answered: Sequence[Observed], names: Sequence[str]) -> list[float]:
    """Return the last value of each signal and the mean of all; 0 where nothing is known."""
    found = []
    for name in names:
        values = [v for item in answered if not math.isnan(v := item.signals.get(name, math.nan))]
        found += [values[-1], sum(values) / len(values)] if values else [0.0, 0.0]
    return found


def _actions(
    prior: Prior,
    asked_M: np.ndarray,
    answered: Sequence[Observed],
    scores: Sequence[float],
    column: Mapping[str, int],
) -> Floats:
    """Return the features of every action, shape (A, K).

    For calls: expected utility before and after the first answer, gain over the last answer's score and over
    the best expected quality so far, whether it was asked; for the stop: the last answer's score,
    or its model's expected quality where nobody scores.
    """
    action_AK = np.zeros((asked_M.size + 1, NUM_SHARED))
    is_asked_M = asked_M > 0
    if not answered:
        action_AK[:-1, 0] = prior.utility_M
    else:
        last_m = column.get(answered[-1].call.candidate, -1)
        known = max((prior.quality_M[m] for m in np.flatnonzero(is_asked_M)), default=0.0)
        action_AK[:-1, 1] = prior.utility_M
        action_AK[:-1, 2] = prior.quality_M - known
        action_AK[:-1, 3] = prior.quality_M - (scores[-1] if scores else 0.0)
        expected = prior.quality_M[last_m] if last_m >= 0 else 0.0
        action_AK[-1, 5] = scores[-1] if scores else expected
    action_AK[:-1, 4] = is_asked_M
    return action_AK
