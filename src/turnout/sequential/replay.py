"""This module replays recorded outcomes: an environment that shows what was called and hides the rest.

A table can stand for the world only where an outcome does not depend on what was called before it, which
nobody but its owner knows; so the owner has to say it. Sub-queries are refused: nobody recorded an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_number
from turnout.sequential.actions import Call, Think
from turnout.sequential.contracts import Environment
from turnout.sequential.trace import Ended, Observed, Trace

REVEALABLE = ("quality",)
"""What an observation may show although nobody would know it in real life."""


@final
class ReplayEnvironment(Environment):
    """Carries calls out by looking them up in an outcome table.

    Parameters
    ----------
    table:
        Recorded outcomes. Cells that were not recorded answer with an error and an unknown charge.
    independent:
        Must be true: the owner's word that a candidate's outcome does not depend on earlier calls.
    answers:
        The extra column that holds the answers' texts; None finds `response` or `answer`, where recorded.
    signals:
        Extra columns of numbers that are known after a call, such as the agreement of its samples.
    reveals:
        `("quality",)` shows the recorded quality as a signal of that name: for teaching and upper bounds.
    costs:
        The table whose costs say what a call costs at most; None takes `table` itself. A bound taken from
        the table that is replayed knows the largest cost of its queries, never that of the cell: give the
        training table where even this is too much.
    quantile:
        Which quantile of a candidate's recorded costs counts as the most; 1 is the maximum.

    Raises
    ------
    InputError
        For `independent=False`, a column that the table lacks, or a signal that is not a number.
    """

    reveals: tuple[str, ...]  # type: ignore[misc]

    def __init__(
        self,
        table: OutcomeTable,
        *,
        independent: bool,
        answers: str | None = None,
        signals: Sequence[str] = (),
        reveals: Sequence[str] = (),
        costs: OutcomeTable | None = None,
        quantile: float = 1.0,
    ) -> None:
        _check_independent(independent)
        check_number("ReplayEnvironment: quantile", quantile, low=0.0, high=1.0)
        for name in reveals:
            if name not in REVEALABLE:
                raise InputError(sentence("ReplayEnvironment: reveals", allowed=REVEALABLE, got=name))
        self.reveals = tuple(reveals)
        self._candidates = table.candidates
        self._column = {name: index for index, name in enumerate(table.names)}
        self._row = {query.id: index for index, query in enumerate(table.queries)}
        self._samples = int(table.sample.max()) + 1 if table.num_rows else 1
        cell = (table.query_index * len(self._column) + table.candidate_index) * self._samples + table.sample
        self._outcome = dict(zip(cell.tolist(), range(table.num_rows), strict=True))
        self._quality = table.quality.tolist()
        self._usd = table.cost_usd.tolist()
        self._input_tokens = _counts(table.input_tokens)
        self._output_tokens = _counts(table.output_tokens)
        self._latency_s = table.latency_s.tolist()
        self._answer = _texts(table, answers)
        self._signals = {name: _numbers(table, name) for name in signals}
        self._most_usd = _most_usd(table if costs is None else costs, quantile)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The table's candidates."""
        return self._candidates

    def accept(self, query: Query) -> Query:
        """Return the query; raises `InputError` if the table has no query of its id."""
        if query.id not in self._row:
            raise InputError(
                sentence("ReplayEnvironment: query", got=query.id, do=did_you_mean(query.id, self._row))
            )
        return query

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the most that the candidate ever cost, in USD; NaN where no cost is known."""
        return self._most_usd.get(request.candidate, math.nan) if isinstance(request, Call) else math.nan

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Return the recorded outcomes of these calls.

        Raises `InputError` for a call with a text of its own: a table has no answer to it.
        """
        return tuple(self._look_up(call, trace.query.id) for call in calls)

    def judge(self, trace: Trace) -> float:
        """Return the recorded quality of the call whose answer was given.

        0 where the task ended without an answer, NaN for an answer in the sequencer's own words or one
        whose quality was not recorded.
        """
        ended = trace.last
        if not isinstance(ended, Ended):
            return math.nan
        if ended.source is None:
            return 0.0 if ended.answer is None else math.nan
        row = self._find(ended.source, trace.query.id)
        return math.nan if row is None else self._quality[row]

    def _look_up(self, call: Call, query_id: str) -> Observed:
        if call.text is not None:
            raise InputError(
                sentence(
                    f"ReplayEnvironment: a call of {call.candidate!r} with a text of its own",
                    allowed="calls that ask the query itself, text=None",
                    do="take a live environment: a table holds no answers to sub-queries",
                )
            )
        row = self._find(call, query_id)
        if row is None:
            why = f"no outcome of {call.candidate!r}, sample {call.sample}, was recorded on {query_id!r}"
            return Observed(call=call, error=why)
        signals = {name: values[row] for name, values in self._signals.items()}
        if self.reveals:
            signals["quality"] = self._quality[row]
        return Observed(
            call=call,
            answer=None if self._answer is None else self._answer[row],
            usd=self._usd[row],
            input_tokens=self._input_tokens[row],
            output_tokens=self._output_tokens[row],
            latency_s=self._latency_s[row],
            signals=signals,
        )

    def _find(self, call: Call, query_id: str) -> int | None:
        column = self._column.get(call.candidate)
        if column is None or call.sample >= self._samples:
            return None
        cell = (self._row[query_id] * len(self._column) + column) * self._samples + call.sample
        return self._outcome.get(cell)


def _check_independent(independent: bool) -> None:
    if independent is not True:
        raise InputError(
            sentence(
                "ReplayEnvironment: independent",
                allowed="True: outcomes that do not depend on earlier calls",
                got=independent,
                do="record what came after each prefix of calls, or ask live models",
            )
        )


def _most_usd(table: OutcomeTable, quantile: float) -> dict[str, float]:
    """Return the upper cost of every candidate in USD, without those of which no cost is known."""
    most_usd = {}
    for index, name in enumerate(table.names):
        usd = table.cost_usd[table.candidate_index == index]
        known = usd[np.isfinite(usd)]
        if known.size:
            most_usd[name] = float(np.quantile(known, quantile))
    return most_usd


def _counts(column: Floats) -> list[int | None]:
    return [None if math.isnan(value) else int(value) for value in column.tolist()]


def _texts(table: OutcomeTable, name: str | None) -> list[str | None] | None:
    if name is None:
        name = next((known for known in ("response", "answer") if known in table.extras), None)
        if name is None:
            return None
    return [None if value is None else str(value) for value in _extra(table, name)]


def _numbers(table: OutcomeTable, name: str) -> list[float]:
    try:
        return [math.nan if value is None else float(value) for value in _extra(table, name)]
    except (TypeError, ValueError) as error:
        raise InputError(
            sentence(f"ReplayEnvironment: the signal {name!r}", allowed="a column of numbers", got=str(error))
        ) from error


def _extra(table: OutcomeTable, name: str) -> list[Any]:
    if name not in table.extras:
        raise InputError(
            sentence("ReplayEnvironment: extra column", got=name, do=did_you_mean(name, table.extras))
        )
    return list(table.extras[name].tolist())
