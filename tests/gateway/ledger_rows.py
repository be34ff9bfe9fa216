"""Rows of a ledger, with plain values where a test names none, and their way into a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import msgspec

from turnout.gateway.central import TABLES
from turnout.gateway.schema import DecisionRow, FeedbackRow, ResultRow, insert_statement, migrate


def decision(number: int, **changes: object) -> DecisionRow:
    values = {
        "decision_id": f"{number:06d}",
        "session_id": "s",
        "time_s": float(number),
        "requested_model": "turnout/auto",
        "chosen": "small",
        "is_stream": False,
        "text": None,
    }
    return DecisionRow(**{**values, **changes})  # type: ignore[arg-type]


def result(number: int, **changes: object) -> ResultRow:
    values = {
        "decision_id": f"{number:06d}",
        "end_s": number + 1.0,
        "served": "small",
        "provider": "main",
        "is_replay": False,
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_tokens": None,
        "usage_estimated": False,
        "usd": 0.25,
        "status": 200,
        "error": None,
        "attempts": 1,
        "faults": None,
        "latency_s": 1.0,
        "first_byte_s": None,
    }
    return ResultRow(**{**values, **changes})  # type: ignore[arg-type]


def score(number: int, value: float) -> FeedbackRow:
    return FeedbackRow(decision_id=f"{number:06d}", time_s=number + 2.0, score=value, source=None)


def write_rows(path: Path, rows: Iterable[msgspec.Struct], *, now_s: float = 0.0) -> None:
    """Write rows of any table into a ledger, which is made where it is missing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, now_s=now_s, where=str(path))
        connection.execute("BEGIN")
        made = list(rows)
        for table, kind in TABLES.items():
            values = [msgspec.structs.astuple(row) for row in made if type(row) is kind]
            connection.executemany(insert_statement(kind, table), values)
        connection.execute("COMMIT")
