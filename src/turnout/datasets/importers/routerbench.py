"""This module reads the wide table of RouterBench (Hu et al. 2024, arXiv 2403.12031).

Source: github.com/withmartian/routerbench at cc67d10, convertors/common.py (`convert_to_wide_format`): the
columns sample_id, prompt, eval_name; per model `<model>` (score), `<model>|model_response` and
`<model>|total_cost` (USD); and oracle_model_to_route_to. It is released as a pickle, which is refused; a CSV
or parquet export of it is read.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, final

from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.wide import Row, refuse_columns, require_columns, text_cell, wide_rows
from turnout.datasets.reading import clean_text, number

_META = ("sample_id", "prompt", "eval_name")
_ORACLE = "oracle_model_to_route_to"
_COST, _RESPONSE = "|total_cost", "|model_response"
# One turn without a backslash: most cells, and parsing them as Python is slow.
_PLAIN = re.compile(r"""\['([^'\\]+)'\]|\["([^"\\]+)"\]""")


@final
class RouterBench(Importer):
    """One row per prompt; score, response and cost per model.

    The oracle column is dropped: it is derived from the scores and must not reach a router. Prompts are
    stored as the text of a Python list of turns; they are joined by blank lines.

    Parameters
    ----------
    ignore:
        Further columns to leave out (an export may have gained some, such as embeddings).
    responses:
        Whether to keep the answers as the extra column `response` (they are most of the file).
    """

    summary: ClassVar[str] = "RouterBench wide table, exported to csv or parquet"

    def __init__(self, *, ignore: Collection[str] = (), responses: bool = True) -> None:
        self.ignore = frozenset(ignore)
        self.responses = responses

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether the columns are RouterBench's."""
        return head.kind in ("csv", "parquet") and {"sample_id", "eval_name"} <= set(head.columns)

    def read(self, path: Path) -> OutcomeTable:
        """Read the table; the query id is sample_id and the task is eval_name."""
        columns, rows = wide_rows(path)
        require_columns(path, columns, _META)
        models = _models(columns)
        explained = {*_META, _ORACLE, *self.ignore, *(m + s for m in models for s in ("", _COST, _RESPONSE))}
        allowed = f"{', '.join(_META)}, {_ORACLE}, and <model> with <model>{_COST} or <model>{_RESPONSE}"
        refuse_columns(path, [c for c in columns if c not in explained], allowed=allowed)
        require_columns(path, columns, models or ("<model>", f"<model>{_COST}"))
        draft = TableDraft(path)
        with warnings.catch_warnings():
            # A cell that only looks like a list may hold backslashes that Python's parser warns of.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            for place, row in rows:
                self._add_row(draft, place, row, models)
        return draft.build()

    def _add_row(self, draft: TableDraft, place: str, row: Row, models: list[str]) -> None:
        # Parquet may hold numbers here; None and "" are refused alike.
        raw_id = row["sample_id"]
        sample_id = text_cell(place, "sample_id", None if raw_id is None else str(raw_id)) or ""
        prompt = text_cell(place, "prompt", row["prompt"]) or ""
        task = text_cell(place, "eval_name", row["eval_name"], may_be_empty=True)
        query = draft.add_query(
            sample_id, Query(id=sample_id, text=clean_text(join_turns(prompt)), task=task), place=place
        )
        for model in models:
            measures = {
                "quality": number(f"{place}: column {model!r}", row[model]),
                "cost_usd": number(f"{place}: column {model + _COST!r}", row.get(model + _COST)),
            }
            response = text_cell(place, _RESPONSE, row.get(model + _RESPONSE), may_be_empty=True)
            extras = {"response": clean_text(join_turns(response))} if response and self.responses else None
            draft.add(query, model, measures, place=place, extras=extras)


def _models(columns: list[str]) -> list[str]:
    suffixed = {name.removesuffix(s) for name in columns for s in (_COST, _RESPONSE) if name.endswith(s)}
    return [name for name in columns if name in suffixed] + sorted(suffixed - set(columns))


def join_turns(text: str) -> str:
    """Return the turns of a `['...', '...']` cell joined by blank lines, or the cell itself."""
    if not text.startswith("["):
        return text
    if plain := _PLAIN.fullmatch(text):
        return plain[1] or plain[2]
    try:
        turns = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    is_turns = isinstance(turns, list) and all(isinstance(turn, str) for turn in turns)
    return "\n\n".join(turns) if is_turns else text
