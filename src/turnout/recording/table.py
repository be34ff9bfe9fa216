"""This module makes the outcome table of a journal, and says in short what it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.errors import InputError
from turnout.core.outcomes import OutcomeTable
from turnout.recording.journal import AnswerLine, ScoreLine
from turnout.recording.pool import Member
from turnout.recording.prompts import Prompt
from turnout.recording.run import Done

_NOTHING = ScoreLine(cell=("", "", 0), how="", quality=None, error=None)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What one candidate came to."""

    candidate: str
    answers: int
    failures: int
    """Cells without an answer, whatever was tried."""
    empty: int
    """Those of them that were answered, and charged for, without text; nobody asks for them again."""
    unscored: int
    """Answers whose quality is not known."""
    cut: int
    """Answers that ended at their token budget."""
    quality: float | None
    usd_per_1k: float | None
    """Mean cost of 1,000 answers, of those whose cost is known."""
    latency_s: float | None
    """Median."""


def table_of(done: Done, prompts: Sequence[Prompt], members: Sequence[Member]) -> OutcomeTable:
    """Return the table of every cell that was asked.

    A cell whose call failed has no quality: a failure is not a wrong answer. Beside `answer`, the extras are
    `error`, `score_error`, `attempts`, `finish`, `usage_estimated` and `scoring_usd`. Raises `InputError`
    where nobody answered.
    """
    rows = [(cell, done.state.answers[cell]) for cell in done.cells if cell in done.state.answers]
    if not any(line.text is not None for _, line in rows):
        why = "the cap has no room for one call" if done.is_capped else "there was no call"
        why = next((line.error for _, line in rows if line.error is not None), why)
        raise InputError(f"nobody answered, so there is no table; {why}")
    wanted = {cell[0] for cell, _ in rows}
    kept = [prompt for prompt in prompts if prompt.id in wanted]
    place = {prompt.id: index for index, prompt in enumerate(kept)}
    column = {member.name: index for index, member in enumerate(members)}
    rows.sort(key=lambda row: (place[row[0][0]], column[row[0][1]], row[0][2]))
    lines = [line for _, line in rows]
    scores = [_score(done, line) for line in lines]
    return OutcomeTable(
        queries=[prompt.query() for prompt in kept],
        candidates=[member.candidate for member in members],
        query_index=[place[cell[0]] for cell, _ in rows],
        candidate_index=[column[cell[1]] for cell, _ in rows],
        sample=[cell[2] for cell, _ in rows],
        quality=[_known(score.quality) for score in scores],
        cost_usd=[_known(line.usd) for line in lines],
        input_tokens=[_known(line.input_tokens) for line in lines],
        output_tokens=[_known(line.output_tokens) for line in lines],
        latency_s=[_known(line.latency_s) for line in lines],
        splits=[prompt.split for prompt in kept],
        references=[prompt.reference for prompt in kept],
        extras={
            "answer": [line.text for line in lines],
            "error": [line.error for line in lines],
            "score_error": [score.error for score in scores],
            "attempts": [line.attempts for line in lines],
            "finish": [line.finish for line in lines],
            "usage_estimated": [line.is_estimated for line in lines],
            "scoring_usd": [score.charged_usd for score in scores],
        },
    )


def summary_of(table: OutcomeTable) -> list[Line]:
    """Return a line for each candidate, in order."""
    return [_line(table, name, index) for index, name in enumerate(table.names)]


def _line(table: OutcomeTable, name: str, index: int) -> Line:
    rows = np.flatnonzero(table.candidate_index == index)
    answers = [row for row in rows if table.extras["answer"][row] is not None]
    return Line(
        candidate=name,
        answers=len(answers),
        failures=len(rows) - len(answers),
        # What came back has a count of tokens, and a failure none.
        empty=int(np.isfinite(table.input_tokens[np.setdiff1d(rows, answers)]).sum()),
        unscored=int(np.isnan(table.quality[answers]).sum()),
        cut=sum(table.extras["finish"][row] == "length" for row in answers),
        quality=_mean(table.quality[rows]),
        usd_per_1k=None if (usd := _mean(table.cost_usd[answers])) is None else usd * 1000,
        latency_s=_median(table.latency_s[answers]),
    )


def _score(done: Done, line: AnswerLine) -> ScoreLine:
    return _NOTHING if line.text is None else done.state.scores.get(line.cell, _NOTHING)


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else None
