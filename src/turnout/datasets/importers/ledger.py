"""This module reads the ledger of a turnout gateway: what was asked, who answered, what came of it.

The file is SQLite with the tables `decisions`, `results` and `feedback`, the view `requests` that joins the
first two, and `schema_version` (`turnout.gateway.schema`). It is opened read-only, and may be read while a
gateway writes it.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, final

from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.reading import require_file

VERSION = 8
_WITH_TASK = 8
"""The first version with task and tags."""
"""The newest schema version that this importer reads."""

_TABLES = frozenset({"decisions", "feedback", "results"})
_EXTRAS = (
    "time_s",
    "chosen",
    "reason",
    "propensity",
    "price",
    "expected_quality",
    "expected_cost_usd",
    "provider",
    "is_replay",
    "usage_estimated",
    "status",
    "error",
)
# The last word counts: a score may be corrected later.
_SCORES = """
SELECT decision_id, score FROM feedback WHERE :source IS NULL OR source = :source ORDER BY time_s, rowid
"""
_REQUESTS = f"""
SELECT decision_id, served, text, {{told}}, requested_model, usd, input_tokens, output_tokens, latency_s,
    {", ".join(_EXTRAS)}
FROM requests WHERE served IS NOT NULL AND reason IS NOT 'cache' ORDER BY time_s, decision_id
"""


@final
class Ledger(Importer):
    """One query per request that a model answered; the query id is the decision id.

    Quality is the score that came back for the request, the last one where there are several, and unknown
    where none came. Requests that nobody answered (in flight, refused, lost in a crash) are left out, and so
    are those that were answered from a cache, which cost nothing and say nothing of the model. Where an
    answer failed, was cut or was a replay, its latency says nothing of the model and is unknown. The text is
    there only if the gateway was told to keep it (`ledger.keep_text`), and so are the task and the tags that
    a client told. The decision's own record (propensity, reason, price, expected quality and cost) comes
    along as extras, for off-policy evaluation.

    Parameters
    ----------
    source:
        Read the scores of this source only; None reads all.
    """

    summary: ClassVar[str] = "turnout gateway ledger (SQLite); feedback scores are quality"

    def __init__(self, *, source: str | None = None) -> None:
        self.source = source

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether it is a SQLite file with the ledger's tables."""
        return head.kind == "sqlite" and set(head.columns) >= _TABLES

    def read(self, path: Path) -> OutcomeTable:
        """Read the requests in the order of their time."""
        draft = TableDraft(path)
        with _open(path) as connection:
            told = "task, tags" if _version(path, connection) >= _WITH_TASK else "NULL AS task, NULL AS tags"
            scores: dict[str, float] = dict(connection.execute(_SCORES, {"source": self.source}))
            for row in connection.execute(_REQUESTS.format(told=told)):
                _add(draft, path, row, scores.get(row["decision_id"], math.nan))
        return draft.build()


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{require_file(path).resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    except sqlite3.Error as error:
        raise TableError(
            sentence(
                f"{str(path)!r} cannot be read as a ledger",
                allowed="a SQLite file that a turnout gateway wrote",
                got=str(error),
            )
        ) from error
    finally:
        connection.close()


def _version(path: Path, connection: sqlite3.Connection) -> int:
    """Return the version of the schema; raises `TableError` for one that is not known."""
    version: int | None
    (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    if version is None or version > VERSION:
        raise TableError(
            sentence(
                f"{str(path)!r} has a ledger schema that this turnout does not read",
                allowed=f"version 1 to {VERSION}",
                got="no version" if version is None else version,
                do="upgrade turnout",
            )
        )
    return version


def _add(draft: TableDraft, path: Path, row: sqlite3.Row, score: float) -> None:
    decision_id = row["decision_id"]
    place = f"{str(path)!r}, decision {decision_id!r}"
    tags = {} if row["requested_model"] is None else {"requested_model": row["requested_model"]}
    tags |= {} if row["tags"] is None else json.loads(row["tags"])
    query = Query(id=decision_id, text=row["text"], task=row["task"], tags=tags)
    index = draft.add_query(decision_id, query, place=place)
    is_timed = row["status"] < 400 and row["error"] is None and not row["is_replay"]
    measures = {
        "quality": score,
        "cost_usd": _known(row["usd"]),
        "input_tokens": _known(row["input_tokens"]),
        "output_tokens": _known(row["output_tokens"]),
        "latency_s": _known(row["latency_s"]) if is_timed else math.nan,
    }
    draft.add(index, row["served"], measures, place=place, extras={name: row[name] for name in _EXTRAS})


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)
