"""This module reads text, CSV, JSON and JSON lines so that every fault names its file and its line.

Numbers are strict: an empty cell or `null` is unknown and becomes NaN; `nan`, `inf` and words are refused,
because a file that writes them leaves open whether a score is missing or a computation failed.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from turnout.core.errors import TableError, sentence

UNKNOWN = math.nan
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib"})
_DELIMITERS = (",", ";", "\t")
_BOOLEANS = {"true": 1.0, "false": 0.0}


def require_file(path: Path) -> Path:
    """Return `path` if it is a readable file that is not a pickle; raise `TableError` if not."""
    if not path.exists():
        raise TableError(sentence(f"no file at {str(path)!r}", do="check the path"))
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file"
        raise TableError(sentence(f"{str(path)!r} {what}", allowed="a file", do="name a file"))
    if is_pickle(path):
        parquet = path.with_suffix(".parquet").name
        raise TableError(
            sentence(
                f"{str(path)!r} is a pickle, and reading a pickle can run any code in it",
                allowed="csv, parquet, json or jsonl",
                do='where you trust the file, convert it once: python -c "import pandas; '
                f'pandas.read_pickle({path.name!r}).to_parquet({parquet!r})"',
            )
        )
    return path


def is_pickle(path: Path) -> bool:
    """Whether the name or the first two bytes say that this is a pickle (protocols 2 to 5)."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as error:
        raise TableError(
            sentence(f"{str(path)!r} cannot be opened", got=error.strerror, do="check its permissions")
        ) from error
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def read_text(path: Path) -> str:
    """Return the whole file as text; a byte that is not UTF-8 is named by its offset."""
    data = require_file(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from after the byte order mark.
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise not_utf8(path, offset, data[offset]) from error


def not_utf8(path: Path, offset: int, byte: int) -> TableError:
    """Build the error for a byte that is not UTF-8."""
    return TableError(
        sentence(
            f"{str(path)!r} is not UTF-8 at byte offset {offset}",
            allowed="UTF-8 text",
            got=f"0x{byte:02x}",
            do="save it as UTF-8, for example: iconv -f latin1 -t utf-8",
        )
    )


def csv_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return the header and an iterator of (line number, cells by column).

    The line number is where the row ends, since a quoted cell may hold line breaks.
    """
    # newline="" leaves line breaks inside quoted cells as they are, and splits at no other separator.
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text), strict=True)
    header = _next_row(path, reader)
    if not header:
        raise TableError(sentence(f"{str(path)!r} is empty", allowed="a header line and rows"))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(
            sentence(f"{str(path)!r}, line 1: a column stands twice", allowed="every column once", got=twice)
        )
    return header, _dict_rows(path, reader, header)


def delimiter(text: str) -> str:
    """Return what stands between the cells of a CSV: the sign that makes most columns of its header.

    Spreadsheets write semicolons where the comma is the decimal sign, and tabs when a table is copied.
    """
    return max(_DELIMITERS, key=lambda sign: _num_cells(text, sign))


def _num_cells(text: str, sign: str) -> int:
    try:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True), ()))
    except csv.Error:
        return 0


def _dict_rows(path: Path, reader: Any, header: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    while (row := _next_row(path, reader)) is not None:
        if not row:
            continue
        if len(row) != len(header):
            raise TableError(
                sentence(
                    f"{str(path)!r}, line {reader.line_num}: wrong number of cells",
                    allowed=f"{len(header)}, as in the header",
                    got=len(row),
                    do="quote cells that hold a comma, a quote or a line break",
                )
            )
        yield reader.line_num, dict(zip(header, row, strict=True))


def _next_row(path: Path, reader: Any) -> list[str] | None:
    # The limit belongs to the whole process: raise it for one row only, prompts may be megabytes.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        row: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise TableError(
            sentence(f"{str(path)!r}, line {reader.line_num}: broken CSV", got=str(error))
        ) from error
    finally:
        csv.field_size_limit(limit)
    return row


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for every line that is not blank."""
    offset = 0
    with require_file(path).open("rb") as file:
        for line, data in enumerate(file, start=1):
            try:
                text = data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset + error.start, data[error.start]) from error
            offset += len(data)
            if text.strip():
                yield line, json_object(path, line, text)


def json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    """Parse one line that must hold one JSON object."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise TableError(
            sentence(
                f"{str(path)!r}, line {line}{column}: malformed JSON",
                allowed="one JSON object a line",
                got=getattr(error, "msg", str(error)),
                do="correct the line, or write or download the file again where it was cut",
            )
        ) from error
    if not isinstance(value, dict):
        raise TableError(sentence(f"{str(path)!r}, line {line}", allowed="a JSON object", got=value))
    return value


def json_document(path: Path) -> Any:
    """Parse a whole file as one JSON value."""
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise TableError(
            sentence(
                f"{str(path)!r}, line {error.lineno}, column {error.colno}: malformed JSON",
                allowed="one whole JSON document",
                got=error.msg,
                do="correct that place, or write or download the file again where it was cut",
            )
        ) from error
    except TableError:
        raise
    except (ValueError, RecursionError) as error:
        raise TableError(
            sentence(
                f"{str(path)!r}: malformed JSON",
                allowed="one whole JSON document",
                got=str(error),
                do="write or download it again",
            )
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null for unknown")


def clean_text(value: str) -> str:
    """Replace lone halves of surrogate pairs by U+FFFD: JSON escapes may hold them, UTF-8 may not."""
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def number(where: str, value: object, *, do: str | None = None) -> float:
    """Return a cell or a JSON value as a float; empty and null are NaN, booleans and `True` are 1 or 0.

    `do` is the next step that the error names.
    """
    if value is None or value == "":
        return UNKNOWN
    parsed = _parse(value)
    if math.isfinite(parsed):
        return parsed
    allowed = "a finite number, or empty (in JSON: null) for unknown"
    raise TableError(sentence(where, allowed=allowed, got=value, do=do))


def _parse(value: object) -> float:
    if isinstance(value, str):
        boolean = _BOOLEANS.get(value.strip().lower())
        if boolean is not None:
            return boolean
    try:
        return float(value) if isinstance(value, str | bool | int | float) else math.nan
    except (ValueError, OverflowError):
        return math.nan
