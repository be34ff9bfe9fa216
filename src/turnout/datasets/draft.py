"""This module collects outcomes row by row and remembers where each came from.

Importers fill a `TableDraft`; it refuses a row that `OutcomeTable` would refuse, but says it in terms of the
file: `gpt4.jsonl, line 7` instead of a row number that the user has never seen.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Literal, final

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rows import MEASURES

Repeats = Literal["error", "sample"]
"""What to do when a file holds the same query and candidate twice: refuse, or number them as samples."""

_HIGHEST = {name: 1.0 if name == "quality" else sys.float_info.max for name in MEASURES}


@final
class TableDraft:
    """An outcome table under construction.

    Parameters
    ----------
    source:
        The file or folder that is read; every error names it.
    repeats:
        `error` refuses a second row of the same query and candidate; `sample` numbers them 0, 1, 2, ...
    """

    def __init__(self, source: Path, *, repeats: Repeats = "error") -> None:
        if repeats not in ("error", "sample"):
            raise InputError(sentence("option 'repeats'", allowed="'error' or 'sample'", got=repeats))
        self._source = source
        self._repeats = repeats
        self._queries: list[Query] = []
        self._splits: list[str | None] = []
        self._references: list[str | None] = []
        self._query_of: dict[Hashable, int] = {}
        self._candidate_of: dict[str, int] = {}
        self._columns: dict[str, list[float]] = {name: [] for name in MEASURES}
        self._pairs: list[tuple[int, int, int]] = []
        self._extras: dict[str, dict[int, object]] = {}
        self._seen: dict[tuple[int, int], tuple[int, str]] = {}

    @property
    def num_queries(self) -> int:
        """Number of queries so far."""
        return len(self._queries)

    def find(self, key: Hashable) -> int | None:
        """Return the index of the query that was added under `key`, or None."""
        return self._query_of.get(key)

    def id_of(self, query: int) -> str:
        """Return the id of a query that was added."""
        return self._queries[query].id

    def text_of(self, query: int) -> str | None:
        """Return the text of a query that was added."""
        return self._queries[query].text

    def add_query(
        self,
        key: Hashable,
        query: Query,
        *,
        place: str,
        split: str | None = None,
        reference: str | None = None,
    ) -> int:
        """Add a query under a key that is not yet taken and return its index."""
        if key in self._query_of:
            raise TableError(
                sentence(
                    f"{place}: the query {query.id!r} stands twice",
                    allowed="every query once",
                    do="remove the repetition, or give it an id of its own",
                )
            )
        self._query_of[key] = len(self._queries)
        self._queries.append(query)
        self._splits.append(split)
        self._references.append(reference)
        return self._query_of[key]

    def replace_query(
        self, index: int, query: Query, *, reference: str | None, split: str | None = None
    ) -> None:
        """Put a fuller description in the place of a query that was added; no split leaves what there was."""
        self._queries[index] = query
        self._references[index] = reference
        self._splits[index] = split or self._splits[index]

    def add(
        self,
        query: int,
        model: str,
        measures: Mapping[str, float],
        *,
        place: str,
        extras: Mapping[str, object] | None = None,
    ) -> None:
        """Add one outcome; `measures` maps names of `MEASURES` to numbers, absent and NaN are unknown."""
        if not model.strip():
            raise TableError(sentence(f"{place}: model name", allowed="a name that is not blank", got=model))
        for name, column in self._columns.items():
            value = measures.get(name, math.nan)
            # NaN, the unknown, is not equal to itself.
            if not 0.0 <= value <= _HIGHEST[name] and value == value:
                raise _out_of_range(place, name, model, value)
            column.append(value)
        candidate = self._candidate_of.setdefault(model, len(self._candidate_of))
        row = len(self._pairs)
        self._pairs.append((query, candidate, self._number_repeat(query, candidate, model, place)))
        for name, extra in (extras or {}).items():
            if extra is not None:
                self._extras.setdefault(name, {})[row] = extra

    def build(self, candidates: Iterable[Candidate] = ()) -> OutcomeTable:
        """Return the table; `candidates` describes models by name, those not among the rows are left out."""
        if not self._pairs:
            raise TableError(
                sentence(f"{str(self._source)!r} holds no outcome", allowed="at least one row with a model")
            )
        described = {candidate.name: candidate for candidate in candidates}
        num_rows = len(self._pairs)
        query_index, candidate_index, sample = zip(*self._pairs, strict=True)
        return OutcomeTable(
            queries=self._queries,
            candidates=[described.get(name, Candidate(model=name)) for name in self._candidate_of],
            query_index=query_index,
            candidate_index=candidate_index,
            sample=sample,
            splits=self._splits,
            references=self._references,
            extras={
                name: same_kind([rows.get(i) for i in range(num_rows)]) for name, rows in self._extras.items()
            },
            **self._columns,
        )

    def _number_repeat(self, query: int, candidate: int, model: str, place: str) -> int:
        count, first = self._seen.get((query, candidate), (0, place))
        if count and self._repeats == "error":
            raise TableError(
                sentence(
                    f"{place} repeats the query and the candidate {model!r} of {first}",
                    allowed="every (query, candidate, sample) once",
                    do="remove one, or pass repeats='sample' to number repetitions as samples",
                )
            )
        self._seen[query, candidate] = (count + 1, first)
        return count


def same_kind(values: list[object]) -> list[object]:
    """Return a column as it is if it holds one kind of value, and as texts if it mixes kinds.

    A column of a parquet file has one type; jsonl fields that nobody checked may have several.
    """
    kinds = {type(value) for value in values if value is not None}
    is_one_kind = kinds <= {str} or kinds <= {bool} or kinds <= {float}
    if is_one_kind or (kinds <= {int} and all(value is None or _fits(value) for value in values)):
        return values
    return [value if value is None or isinstance(value, str) else str(value) for value in values]


def _fits(value: object) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _out_of_range(place: str, name: str, model: str, value: float) -> TableError:
    is_quality = name == "quality"
    return TableError(
        sentence(
            f"{place}: {name} of {model!r}",
            allowed=("a number in [0, 1]" if is_quality else "a finite number of at least 0")
            + ", or empty (in JSON: null) for unknown",
            got=value,
            do="rescale the scores to [0, 1]" if is_quality else None,
        )
    )
