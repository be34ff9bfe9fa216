"""This module helps the tests of the datasets room: rows to compare, and sentences to check."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from turnout.core import OutcomeTable, TurnoutError

FIXTURES = Path(__file__).parent / "fixtures"
UNKNOWN = None


def column(table: OutcomeTable, name: str) -> dict[tuple[str, str], float | None]:
    """Return a measured column by (query id, candidate name); unknown is None."""
    values = getattr(table, name)
    return {
        (table.queries[q].id, table.names[m]): None if math.isnan(value) else float(value)
        for q, m, value in zip(table.query_index, table.candidate_index, values, strict=True)
    }


def extra(table: OutcomeTable, name: str) -> dict[tuple[str, str], object]:
    """Return an extra column by (query id, candidate name)."""
    pairs = zip(table.query_index, table.candidate_index, table.extras[name], strict=True)
    return {(table.queries[q].id, table.names[m]): value for q, m, value in pairs}


def check_sentence(caught: pytest.ExceptionInfo[TurnoutError], *parts: str) -> None:
    """Require every part in the message: what, where, allowed, got, what to do."""
    message = str(caught.value)
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"
    assert "\n" not in message


def write(path: Path, text: str) -> Path:
    """Write a text file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path
