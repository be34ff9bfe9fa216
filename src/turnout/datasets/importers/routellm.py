"""This module reads the answer tables of RouteLLM (Ong et al. 2024, arXiv 2406.18665).

Source: github.com/lm-sys/RouteLLM at 0b64fda, routellm/evals/mmlu/responses/*.csv and
routellm/evals/gsm8k/gsm8k_responses.csv (read by routellm/evals/benchmarks.py): the column prompt, one column
per model with True or False, and where recorded `<model>_response`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, final

from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.layout import ROLES, field_of
from turnout.datasets.importers.wide import (
    Row,
    refuse_columns,
    require_columns,
    text_cell,
    wide_columns,
    wide_rows,
)
from turnout.datasets.reading import clean_text, number

_RESPONSE = "_response"


@final
class RouteLLM(Importer):
    """One row per prompt; right or wrong per model. A folder of such files is read as one table.

    Query ids are the file's name and the row's number; the task is the file's name without `_responses`.
    Neither cost nor tokens are recorded. The files do not tell a call that failed from a wrong answer: their
    writer counts both as False, so such rows stay 0; only an empty cell is unknown.

    Parameters
    ----------
    task:
        The task of every row; None takes it from the file's name.
    ignore:
        Further columns to leave out.
    """

    summary: ClassVar[str] = "RouteLLM answer csv (MMLU, GSM8K): prompt, then True or False per model"

    def __init__(self, *, task: str | None = None, ignore: Collection[str] = ()) -> None:
        self.task = task
        self.ignore = frozenset(ignore)

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether the columns are `prompt` and models, with nothing of the other csv formats.

        A column of models' names or of scores says that a row is of one model: such a file is a long one.
        """
        if head.kind == "folder":
            return head.inner is not None and head.inner.kind == "csv" and cls.recognises(head.inner)
        columns = wide_columns(head.columns)
        return head.kind == "csv" and columns[:1] == ["prompt"] and _is_plain(columns[1:])

    def read(self, path: Path) -> OutcomeTable:
        """Read one file, or every `*.csv` of a folder in the order of their names."""
        draft = TableDraft(path)
        for file in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
            self._add_file(draft, file)
        return draft.build()

    def _add_file(self, draft: TableDraft, path: Path) -> None:
        columns, rows = wide_rows(path)
        require_columns(path, columns, ["prompt"])
        named = [c for c in columns if c != "prompt" and c not in self.ignore]
        models = [c for c in named if not (c.endswith(_RESPONSE) and c.removesuffix(_RESPONSE) in named)]
        orphans = [c for c in models if c.endswith(_RESPONSE)]
        refuse_columns(path, orphans, allowed="prompt, <model>, and <model>_response beside its <model>")
        require_columns(path, columns, models or ["<model>"])
        task = self.task or path.stem.removesuffix("_responses")
        for number_of_row, (place, row) in enumerate(rows):
            query_id = f"{path.stem}/{number_of_row}"
            text = clean_text(text_cell(place, "prompt", row["prompt"]) or "")
            query = draft.add_query(query_id, Query(id=query_id, text=text, task=task), place=place)
            for model in models:
                _add_outcome(draft, query, model, place, row)


def _add_outcome(draft: TableDraft, query: int, model: str, place: str, row: Row) -> None:
    quality = number(f"{place}: column {model!r}", row[model])
    response = row.get(model + _RESPONSE)
    extras = {"response": clean_text(response)} if response else None
    draft.add(query, model, {"quality": quality}, place=place, extras=extras)


def _is_plain(columns: Collection[str]) -> bool:
    ends = ("/score", "/response", "|total_cost", "|model_response")
    return bool(columns) and not any(name.endswith(ends) or field_of(name) in ROLES for name in columns)
