"""This module helps importers of JSON lines: one object per answer, the query repeated in each."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from turnout.core.errors import TableError, sentence
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.reading import clean_text, json_lines, number

Record = Mapping[str, Any]

QUERY_FIELDS = ("metric", "choices", "task_id", "embedding_id", "category")
"""Fields that belong to the query, not to the answer; they become tags."""

_SPLIT = re.compile(r"(?:^|[-_.])(train|test|valid|val|dev)(?:[-_.]|$)")


def files_of(path: Path, pattern: str) -> list[Path]:
    """Return the file itself, or the files of a folder that match, in the order of their names."""
    return sorted(path.glob(pattern)) if path.is_dir() else [path]


def places(path: Path) -> Iterator[tuple[int, str, Record]]:
    """Yield (line, place, object) for every line; `place` names file and line."""
    for line, record in json_lines(path):
        yield line, f"{str(path)!r}, line {line}", record


def split_in_name(path: Path) -> str | None:
    """Return `train`, `test`, ... where the file's name says so."""
    match = _SPLIT.search(path.stem)
    return match[1] if match else None


def require_fields(place: str, record: Record, names: Iterable[str]) -> None:
    """Raise `TableError` naming the first field that is missing from a record."""
    for name in names:
        if name not in record:
            raise TableError(
                sentence(
                    f"{place}: the field {name!r} is missing",
                    allowed=f"{name!r}, null if unknown",
                    got=[*record],
                )
            )


def text_field(place: str, record: Record, name: str, *, may_be_absent: bool = False) -> str | None:
    """Return a text field; None where it is absent, null or empty and that is allowed.

    Numbers, booleans, lists and objects are refused where text must stand, and written as text where it may.
    """
    value = record.get(name)
    if may_be_absent and (value is None or value == ""):
        return None
    if isinstance(value, str) and value:
        return clean_text(value)
    if may_be_absent:
        return str(value)
    raise TableError(sentence(f"{place}: field {name!r}", allowed="text that is not empty", got=value))


def measure(place: str, record: Record, *names: str) -> float:
    """Return the first of these fields that is present as a float, NaN where none is or it is null."""
    name = next((name for name in names if name in record), names[0])
    return number(f"{place}: field {name!r}", record.get(name))


def query_of(
    draft: TableDraft, query_id: str, place: str, record: Record, *, task: str | None, split: str | None
) -> int:
    """Return the index of the record's query, added as `query_id` at its first appearance."""
    text = text_field(place, record, "query")
    reference = text_field(place, record, "ground_truth", may_be_absent=True)
    key: Hashable = (task, text, reference, str(record.get("metric")))
    known = draft.find(key)
    if known is not None:
        return known
    tags = {name: str(record[name]) for name in QUERY_FIELDS if record.get(name) is not None}
    query = Query(id=query_id, text=text, task=task, tags=tags)
    return draft.add_query(key, query, place=place, split=split, reference=reference)


def extras_of(record: Record, explained: Iterable[str]) -> dict[str, object]:
    """Return the remaining fields of the answer as extras; texts are cleaned, nested values left out."""
    skip = {*explained, *QUERY_FIELDS}
    kept: dict[str, object] = {}
    for name, value in record.items():
        if name in skip or isinstance(value, dict | list):
            continue
        kept[name] = clean_text(value) if isinstance(value, str) else value
    return kept
