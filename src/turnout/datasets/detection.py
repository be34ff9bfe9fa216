"""This module says which format a file or folder is in, from its first bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from turnout.core.errors import InputError, TableError, sentence
from turnout.core.registry import Registry
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.reading import require_file

_HEAD_BYTES = 1 << 20
_KEY = re.compile(r'"([^"\\]{1,80})"\s*:')
_DATA_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


def detect(path: str | Path, *, registry: Registry) -> str:
    """Return the name of the one format of `registry` that recognises `path`.

    Raises `TableError` where the file is missing or broken, and `InputError` listing the formats where none
    or several recognise it.
    """
    head = read_head(Path(path))
    importers = importer_classes(registry)
    names = [name for name, importer in importers.items() if importer.recognises(head)]
    if len(names) == 1:
        return names[0]
    seen = (
        f"a {head.kind} with {', '.join(head.columns[:8]) or 'no columns'}"
        if head.kind != "other"
        else head.kind
    )
    what = f"the format of {str(path)!r} is " + (
        f"not clear, it may be {' or '.join(names)}" if names else "unknown"
    )
    formats = "; ".join(f"{name} ({importer.summary})" for name, importer in importers.items())
    raise InputError(f"{sentence(what, got=seen)}; name the format yourself; formats: {formats}")


def importer_classes(registry: Registry) -> dict[str, type[Importer]]:
    """Return every importer by the name of its format."""
    return {name: cast(type[Importer], registry.get(name)) for name in registry}


def read_head(path: Path) -> Head:
    """Read the beginning of a file, or of the first data file of a folder."""
    if path.is_dir():
        return _folder_head(path)
    require_file(path)
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
    if data.startswith(b"SQLite format 3\0"):
        return Head(path=path, kind="sqlite", columns=_table_names(path))
    if data.startswith(b"PAR1"):
        return Head(path=path, kind="parquet", columns=_parquet_columns(path))
    text = data.decode("utf-8-sig", errors="replace").lstrip()
    if text[:1] in ("{", "["):
        return _json_head(path, text)
    if path.suffix.lower() == ".csv" or "," in text.partition("\n")[0]:
        return Head(path=path, kind="csv", columns=_csv_columns(path, text))
    return Head(path=path, kind="other")


def _csv_columns(path: Path, text: str) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader(io.StringIO(text, newline=""), strict=True), ()))
    except csv.Error as error:
        raise TableError(sentence(f"{str(path)!r}, line 1: broken CSV", got=str(error))) from error


def _folder_head(path: Path) -> Head:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _DATA_SUFFIXES and f.is_file())
    if not files:
        return Head(path=path, kind="folder")
    # A price list may lie beside the data: the most frequent kind of file speaks for the folder.
    counts = Counter(file.suffix.lower() for file in files)
    suffix = max(counts, key=lambda name: counts[name])
    inner = read_head(next(file for file in files if file.suffix.lower() == suffix))
    return Head(path=path, kind="folder", columns=tuple(file.name for file in files[:8]), inner=inner)


def _json_head(path: Path, text: str) -> Head:
    first_line = text.partition("\n")[0]
    if text.startswith("{"):
        record = _try(json.loads, first_line)
        if isinstance(record, dict):
            return Head(path=path, kind="jsonl", columns=tuple(record))
        if path.suffix.lower() == ".jsonl":
            return Head(path=path, kind="jsonl", columns=_keys(first_line))
        return Head(path=path, kind="json", columns=_keys(text))
    record = _try(lambda head: json.JSONDecoder().raw_decode(head)[0], text[1:].lstrip())
    columns = tuple(record) if isinstance(record, dict) else _keys(text)
    return Head(path=path, kind="json", columns=columns, is_list=True)


def _try(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return None


def _keys(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match[1] for match in _KEY.finditer(text[:65536])))


def _parquet_columns(path: Path) -> tuple[str, ...]:
    # pyarrow stays out of `import turnout.datasets`.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(
            sentence(
                f"{str(path)!r} cannot be read as parquet", got=str(error), do="write or download it again"
            )
        ) from error


def _table_names(path: Path) -> tuple[str, ...]:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
    except sqlite3.DatabaseError as error:
        raise TableError(sentence(f"{str(path)!r} cannot be read as SQLite", got=str(error))) from error
    finally:
        connection.close()
    return tuple(name for (name,) in rows)
