"""This module holds recorded answers: by question, then by candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from turnout.core.errors import ConfigError, sentence
from turnout.core.outcomes import OutcomeTable

ANSWER = "answer"
"""The column of an outcome table that holds what a candidate said."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What one candidate once answered."""

    answer: str | None
    """The text; None where the recording holds no answer."""
    input_tokens: int | None = None
    """None where unknown."""
    output_tokens: int | None = None
    """None where unknown."""


@final
class Recording:
    """Answers to known questions.

    Parameters
    ----------
    answers:
        Question text to candidate name to what was recorded. Questions are compared after
        `normalise`, so spaces and line breaks do not matter and everything else does.
    where:
        What to call the recording in errors.
    """

    def __init__(self, *, answers: Mapping[str, Mapping[str, Recorded]], where: str) -> None:
        self.where = where
        self._answers: dict[str, dict[str, Recorded]] = {}
        for question, by_candidate in answers.items():
            known = self._answers.setdefault(normalise(question), {})
            for name, recorded in by_candidate.items():
                known.setdefault(name, recorded)

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, question: str) -> Mapping[str, Recorded] | None:
        """Return the recorded answers to a question by candidate name, None for an unknown question."""
        return self._answers.get(normalise(question))


def normalise(text: str) -> str:
    """Return the text with every run of whitespace as one space, and none at the ends."""
    return " ".join(text.split())


def read_recording(folder: str | Path) -> Recording:
    """Read an outcome table with answers; raises `TableError`, or `ConfigError` where it has none."""
    return recording_of(OutcomeTable.load(folder), where=Path(folder).name)


def recording_of(table: OutcomeTable, *, where: str) -> Recording:
    """Return the first recorded answer of each (question, candidate) of a table."""
    if ANSWER not in table.extras:
        raise ConfigError(
            sentence(
                f"the table {where!r} cannot be replayed",
                allowed=f"outcomes with a column {ANSWER!r}",
                got=sorted(table.extras),
                do="choose a table with recorded answers, or a provider of kind 'openai'",
            )
        )
    answers: dict[str, dict[str, Recorded]] = {}
    names, values = table.names, table.extras[ANSWER]
    rows = zip(
        table.query_index.tolist(),
        table.candidate_index.tolist(),
        values,
        table.input_tokens.tolist(),
        table.output_tokens.tolist(),
        strict=True,
    )
    for query, candidate, answer, input_tokens, output_tokens in rows:
        text = table.queries[query].text
        if text is None:
            continue
        recorded = Recorded(
            answer=None if answer is None else str(answer),
            input_tokens=_count(input_tokens),
            output_tokens=_count(output_tokens),
        )
        answers.setdefault(text, {}).setdefault(names[candidate], recorded)
    return Recording(answers=answers, where=where)


def _count(tokens: float) -> int | None:
    return None if math.isnan(tokens) else round(tokens)
