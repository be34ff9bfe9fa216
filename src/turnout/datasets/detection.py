"""This module says which format a file or folder is in, from its first bytes."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from turnout.core.errors import InputError, TableError, sentence
from turnout.core.registry import Registry
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.folder import require_table_files
from turnout.datasets.reading import delimiter, json_document, json_lines, not_utf8, require_file

_HEAD_BYTES = 1 << 20
_KEY = re.compile(r'"([^"\\]{1,80})"\s*:')
_DATA_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


def detect(path: str | Path, *, registry: Registry, options: Mapping[str, object] | None = None) -> str:
    """Return the name of the one format of `registry` that recognises `path`.

    Where `options` say which column holds what, it is `long`: no other format has columns to name.

    Raises `TableError` where the file is missing or broken, and `InputError` naming the formats where none
    or several recognise it.
    """
    if options and "columns" in options:
        return "long"
    head = read_head(Path(path))
    importers = importer_classes(registry)
    names = [name for name, importer in importers.items() if importer.recognises(head)]
    if len(names) > 1:
        names = [name for name in names if not importers[name].is_general] or names
    if len(names) == 1:
        return names[0]
    if not names:
        _require_whole(head)
    what = f"the format of {str(path)!r} is " + (
        f"not clear, it may be {' or '.join(names)}" if names else "unknown"
    )
    allowed = f"a file or folder in one of the formats {', '.join(importers)}"
    do = "name the format yourself; docs/datasets.md describes each, and long, for columns of any name"
    if not names and head.kind in ("csv", "jsonl", "parquet"):
        do = (
            "name its columns, as in: turnout import FILE --out DIR --column text=NAME --column model=NAME"
            " --column quality=NAME; or name the format yourself (docs/datasets.md)"
        )
    raise InputError(sentence(what, allowed=allowed, got=_seen(head), do=do))


def _require_whole(head: Head) -> None:
    """Raise `TableError` where what nobody recognises is cut or broken: its format is not the question."""
    if head.kind == "folder":
        require_table_files(head.path)
    elif head.kind == "json":
        json_document(head.path)
    elif head.kind == "jsonl":
        next(json_lines(head.path), None)
    if head.inner is not None:
        _require_whole(head.inner)


def _seen(head: Head) -> str:
    """Return in a few words what the beginning of a file looks like."""
    if head.kind == "other":
        return "text of no kind that is known here"
    columns = [name if len(name) <= 24 else name[:21] + "..." for name in head.columns[:6]]
    kind = "folder of" if head.kind == "folder" else f"{head.kind} with"
    return f"a {kind} {', '.join(columns) or ('no data' if head.kind == 'folder' else 'no columns')}"


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
    text = _head_text(path, data).lstrip()
    if text[:1] in ("{", "["):
        return _json_head(path, text)
    if path.suffix.lower() in (".csv", ".tsv") or any(sign in text.partition("\n")[0] for sign in ",;\t"):
        return Head(path=path, kind="csv", columns=_csv_columns(path, text))
    return Head(path=path, kind="other")


def _head_text(path: Path, data: bytes) -> str:
    """Decode the beginning of a text; raises `TableError` for what is empty, binary or not UTF-8."""
    if not data.strip():
        raise TableError(
            sentence(f"{str(path)!r} is empty", allowed="a table", do="check how it was written")
        )
    if b"\0" in data:
        raise TableError(
            sentence(
                f"{str(path)!r} is a binary file of an unknown kind: it holds a zero byte at offset "
                f"{data.index(0)}",
                allowed="parquet, SQLite, or text in UTF-8 (csv, json, jsonl)",
                do="name another file, or save it as one of these",
            )
        )
    # The end of what was read may cut a character in two: the decoder keeps that part for later.
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=len(data) < _HEAD_BYTES)
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(codecs.BOM_UTF8) else 0)
        raise not_utf8(path, offset, data[offset]) from error


def _csv_columns(path: Path, text: str) -> tuple[str, ...]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text), strict=True)
        return tuple(next(reader, ()))
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
