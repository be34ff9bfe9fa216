"""This module makes tasks whose optimum is known: hidden difficulty, calls that succeed by it, noisy signals.

A task has a hidden difficulty z and shows a hint of it. A call of candidate m is right with probability
p_m(z), independently of other calls given z, and comes back with a signal that depends on nothing but whether
it is right. Whether it is right is never shown. Letters: Z difficulties, H hints, S signals, M candidates.

The beliefs that can be reached are finitely many, so `dynamic.Optimum` finds the best value exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_number
from turnout.sequential.actions import Call, Think
from turnout.sequential.contracts import Environment
from turnout.sequential.trace import Ended, Observed, Trace

HINT = "hint"
"""The tag of a query that holds the number of its hint."""
SIGNAL = "signal"
"""The signal of an observation."""

Rows = Sequence[Sequence[float]]


@final
class SyntheticTask(Configured):
    """A distribution of tasks.

    Parameters
    ----------
    success:
        p_m(z), one row per difficulty, one entry per candidate.
    usd:
        What a call costs, one entry per candidate; powers of two keep sums exact.
    difficulty:
        Probability of every difficulty; None means even.
    hint:
        P(hint | z), one row per difficulty; None means that the hint says nothing.
    signal:
        P(signal | wrong) and P(signal | right), two rows.
    rounds:
        Most calls of a task.

    Raises
    ------
    InputError
        If rows are not distributions or lengths differ.
    """

    room: ClassVar[str] = "sequential"

    def __init__(
        self,
        *,
        success: Rows = ((0.8, 0.9, 0.97), (0.35, 0.7, 0.9), (0.05, 0.25, 0.75)),
        usd: Sequence[float] = (1 / 64, 1 / 16, 1 / 4),
        difficulty: Sequence[float] | None = None,
        hint: Rows | None = ((0.7, 0.3), (0.5, 0.5), (0.3, 0.7)),
        signal: Rows = ((0.6, 0.3, 0.1), (0.1, 0.3, 0.6)),
        rounds: int = 4,
    ) -> None:
        self.success = _rows(success)
        self.usd = tuple(check_number("SyntheticTask.usd", value, low=0.0) for value in usd)
        self.difficulty = None if difficulty is None else tuple(difficulty)
        self.hint = None if hint is None else _rows(hint)
        self.signal = _rows(signal)
        self.rounds = check_count("SyntheticTask.rounds", rounds)
        if any(len(row) != len(self.usd) for row in self.success) or not self.usd:
            raise InputError(
                sentence("SyntheticTask.success", allowed=f"rows of {len(self.usd)} as usd has", got=success)
            )
        if not ((self.success_ZM >= 0) & (self.success_ZM <= 1)).all():
            raise InputError(sentence("SyntheticTask.success", allowed="probabilities", got=success))
        num = len(self.success)
        _check_distributions("difficulty", self.prior_Z[None, :], (1, num))
        _check_distributions("hint", self.hint_ZH, (num, self.hint_ZH.shape[1]))
        _check_distributions("signal", self.signal_CS, (2, self.signal_CS.shape[1]))

    @property
    def success_ZM(self) -> Floats:
        """p_m(z), shape (Z, M)."""
        return np.array(self.success)

    @property
    def prior_Z(self) -> Floats:
        """P(z), shape (Z,)."""
        num = len(self.success)
        return np.full(num, 1.0 / num) if self.difficulty is None else np.array(self.difficulty)

    @property
    def hint_ZH(self) -> Floats:
        """P(hint | z), shape (Z, H)."""
        return np.ones((len(self.success), 1)) if self.hint is None else np.array(self.hint)

    @property
    def signal_CS(self) -> Floats:
        """P(signal | wrong) and P(signal | right), shape (2, S)."""
        return np.array(self.signal)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool: `m0`, `m1` and so on."""
        return tuple(Candidate(model=f"m{index}") for index in range(len(self.usd)))

    def environment(self, num_queries: int, *, seed: int) -> SyntheticEnvironment:
        """Return an environment of that many tasks, drawn once and for all."""
        return SyntheticEnvironment(self, num_queries, seed=seed)


@final
class SyntheticEnvironment(Environment):
    """Tasks drawn from a `SyntheticTask`; every call's outcome is drawn beforehand, so runs are paired."""

    def __init__(self, task: SyntheticTask, num_queries: int, *, seed: int) -> None:
        check_count("SyntheticEnvironment: num_queries", num_queries)
        rng = make_rng(seed, "synthetic")
        self.task = task
        z_Q = rng.choice(len(task.prior_Z), num_queries, p=task.prior_Z)
        hint_Q = _draw(task.hint_ZH[z_Q], rng)
        shape = (num_queries, len(task.usd), task.rounds)
        is_right_QMR = rng.random(shape) < task.success_ZM[z_Q][:, :, None]
        self._signal = _draw(task.signal_CS[is_right_QMR.astype(int)], rng).tolist()
        self._is_right = is_right_QMR.tolist()
        self._usd = dict(zip((c.name for c in task.candidates), task.usd, strict=True))
        self._column = {name: index for index, name in enumerate(self._usd)}
        self._candidates = task.candidates
        self.queries = tuple(
            Query(id=f"t{index}", text=f"{HINT} {hint}", tags={HINT: str(hint)})
            for index, hint in enumerate(hint_Q.tolist())
        )
        self._row = {query.id: index for index, query in enumerate(self.queries)}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool."""
        return self._candidates

    def accept(self, query: Query) -> Query:
        """Return the query; raises `InputError` if it is none of this environment's."""
        if query.id not in self._row:
            raise InputError(
                sentence("SyntheticEnvironment: query", allowed="one of `queries`", got=query.id)
            )
        return query

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return what the call costs, in USD."""
        return self._usd[request.candidate] if isinstance(request, Call) else np.nan

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Return signals; a call or a sample beyond the task's rounds is an error.

        Raises `InputError` for a call with a text of its own: it would be the same draw once more.
        """
        row = self._row[trace.query.id]
        return tuple(self._observe(call, row, trace.num_calls + place) for place, call in enumerate(calls))

    def judge(self, trace: Trace) -> float:
        """Return 1 where the call whose answer was given is right, else 0."""
        ended = trace.last
        if not isinstance(ended, Ended) or ended.source is None:
            return 0.0
        source = ended.source
        return float(self._is_right[self._row[trace.query.id]][self._column[source.candidate]][source.sample])

    def _observe(self, call: Call, row: int, before: int) -> Observed:
        if call.text is not None:
            raise InputError(
                sentence(
                    f"SyntheticEnvironment: a call of {call.candidate!r} with a text of its own",
                    allowed="calls that ask the query itself, text=None",
                    got=call.text,
                )
            )
        if max(call.sample, before) >= self.task.rounds:
            return Observed(call=call, usd=0.0, error=f"a task has {self.task.rounds} rounds")
        signal = self._signal[row][self._column[call.candidate]][call.sample]
        return Observed(call=call, usd=self._usd[call.candidate], signals={SIGNAL: float(signal)})


def _rows(rows: Rows) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in rows)


def _check_distributions(name: str, rows: Floats, shape: tuple[int, int]) -> None:
    is_wrong = rows.shape != shape or (rows < 0).any() or (np.abs(rows.sum(axis=1) - 1) > 1e-9).any()
    if is_wrong:
        allowed = f"{shape[0]} rows of {shape[1]} probabilities that sum to 1"
        raise InputError(sentence(f"SyntheticTask.{name}", allowed=allowed, got=rows.tolist()))


def _draw(probability: Floats, rng: np.random.Generator) -> np.ndarray:
    """Return one index per row of the last axis, drawn by its probabilities."""
    edges = probability.cumsum(axis=-1)[..., :-1]
    drawn: np.ndarray = (rng.random(probability.shape[:-1])[..., None] >= edges).sum(axis=-1)
    return drawn
