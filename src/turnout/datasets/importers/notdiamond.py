"""This module reads the evaluation CSV that Not Diamond trains a custom router from.

Source: the documentation of `train_custom_router` in the client notdiamond 1.7.0 (PyPI) and
docs.notdiamond.ai/docs/offline-personalization: a prompt column, and per candidate
`{provider}/{model}/score` and `{provider}/{model}/response`. Scores are numbers of any metric.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, final

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_number
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.wide import Row, refuse_columns, require_columns, text_cell, wide_rows
from turnout.datasets.reading import clean_text, number

_COLUMN = re.compile(r"(?P<model>[^/]+/.+)/(?P<part>score|response)")


@final
class NotDiamond(Importer):
    """One row per prompt; score and response per `provider/model`.

    Query ids are the file's name and the row's number.

    Parameters
    ----------
    prompt_column:
        Name of the prompt column.
    scale:
        (worst, best) score, mapped linearly to 0 and 1: (1, 10) for a judge, (5, 0) where less is better.
    ignore:
        Further columns to leave out.
    """

    summary: ClassVar[str] = "Not Diamond custom-router csv: prompt, {provider}/{model}/score and /response"

    def __init__(
        self,
        *,
        prompt_column: str = "prompt",
        scale: tuple[float, float] = (0.0, 1.0),
        ignore: Collection[str] = (),
    ) -> None:
        if len(scale) != 2:
            raise InputError(sentence("option 'scale'", allowed="two numbers (worst, best)", got=scale))
        self.prompt_column = prompt_column
        self.worst = check_number("option 'scale': worst", scale[0])
        self.best = check_number("option 'scale': best", scale[1])
        if self.worst == self.best:
            raise InputError(sentence("option 'scale'", allowed="two different numbers", got=scale))
        self.ignore = frozenset(ignore)

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether there is a score column of Not Diamond's form."""
        return head.kind == "csv" and any(_part(name) == "score" for name in head.columns)

    def read(self, path: Path) -> OutcomeTable:
        """Read the table; the candidate is called `provider/model`."""
        columns, rows = wide_rows(path)
        require_columns(path, columns, [self.prompt_column])
        models = [name.removesuffix("/score") for name in columns if _part(name) == "score"]
        explained = {
            self.prompt_column,
            *self.ignore,
            *(f"{m}/{p}" for m in models for p in ("score", "response")),
        }
        allowed = f"{self.prompt_column}, and {{provider}}/{{model}}/score with /response"
        refuse_columns(path, [c for c in columns if c not in explained], allowed=allowed)
        require_columns(path, columns, [f"{m}/score" for m in models] or ["{provider}/{model}/score"])
        draft = TableDraft(path)
        for number_of_row, (place, row) in enumerate(rows):
            query_id = f"{path.stem}/{number_of_row}"
            text = clean_text(text_cell(place, self.prompt_column, row[self.prompt_column]) or "")
            query = draft.add_query(query_id, Query(id=query_id, text=text), place=place)
            for model in models:
                self._add_outcome(draft, query, model, place, row)
        return draft.build()

    def _add_outcome(self, draft: TableDraft, query: int, model: str, place: str, row: Row) -> None:
        score = number(f"{place}: column {model + '/score'!r}", row[f"{model}/score"])
        quality = (score - self.worst) / (self.best - self.worst)
        response = row.get(f"{model}/response")
        extras = {"response": clean_text(response)} if response else None
        draft.add(query, model, {"quality": quality}, place=place, extras=extras)


def _part(column: str) -> str | None:
    match = _COLUMN.fullmatch(column)
    return match["part"] if match else None
