"""This module holds the tables of the ledger, and brings an older file up to date.

`decisions` and `results` are append-only: a decision is written when it is made, its result when the
request ends; `traces` holds what a sequencer did for it. The view `requests` joins the first two, one row per
request; a decision without a result is in flight, or was lost in a crash. Unknown is NULL.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache

import msgspec

from turnout.core.errors import ConfigError, sentence

VERSION = 8
"""Version of the tables that this code writes."""


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and decided; written once, when the decision is made."""

    decision_id: str
    session_id: str
    time_s: float
    requested_model: str | None
    chosen: str | None = None
    reason: str | None = None
    propensity: float | None = None
    price: float | None = None
    goal: str | None = None
    fingerprint: str | None = None
    expected_quality: float | None = None
    expected_cost_usd: float | None = None
    decision_s: float | None = None
    is_stream: bool
    text: str | None = None
    key: str | None = None
    """Name of the client's key."""
    tenant: str | None = None
    """Whose request it is, as the key says."""
    rule: str | None = None
    """Names of the rules that hold."""
    branch: str | None = None
    """Whose deployment decided, where a second one is tried: `live` or `canary`."""
    own: str | None = None
    """Whom the router would have chosen, where chance chose instead."""
    unit: str | None = None
    """Names what stays on one side of the two."""
    scores: str | None = None
    """JSON: name of each candidate that might have served -> its expected quality and cost in USD."""
    task: str | None = None
    """The task that the client told; kept with the text alone."""
    tags: str | None = None
    """JSON: the tags that the client told, by name; kept with the text alone."""


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; written once, when the request ends."""

    decision_id: str
    end_s: float
    served: str | None
    provider: str | None
    is_replay: bool
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    usage_estimated: bool
    usd: float | None
    status: int
    error: str | None
    attempts: int
    faults: str | None
    latency_s: float
    first_byte_s: float | None


class ShadowRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the other of two deployments would have chosen for a request."""

    decision_id: str
    fingerprint: str
    share: float
    """Share of requests that the second deployment served at that time."""
    chosen: str | None = None
    reason: str | None = None
    propensity: float | None = None
    price: float | None = None
    expected_quality: float | None = None
    expected_cost_usd: float | None = None
    decision_s: float | None = None
    scores: str | None = None
    """As in `DecisionRow`."""
    error: str | None = None
    """Why it chose nobody."""


class SwitchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the deployment in force: who did it, from what to what, and on which evidence."""

    time_s: float
    action: str
    """`promote`, `rollback`, `stop_canary`, or `undone` for one of these that was taken back at once."""
    before: str
    """Folder of the deployment in force, as the settings named it."""
    before_fingerprint: str
    after: str
    after_fingerprint: str
    is_forced: bool
    who: str | None
    """Name of the admin's key; None where nobody needs one, or the command line did it."""
    evidence: str | None
    """JSON: what was known of the two."""


class FeedbackRow(msgspec.Struct, frozen=True, kw_only=True):
    """A score that came later."""

    decision_id: str
    time_s: float
    score: float
    source: str | None


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a sequencer did for one request; written once, when the request ends."""

    decision_id: str
    sequencer: str
    ended: str | None
    """How the task ended; NULL where the request was cut before its end."""
    calls: int
    """Calls of candidates, failed ones included."""
    thoughts: int
    """Times that the policy's own model was asked."""
    unknown_charges: int
    """Calls and thoughts whose charge nobody reported; the request's spend is without them."""
    usd: float
    trace: str
    """The trace as JSON lines (`turnout.sequential.record`); texts only with `ledger.keep_text`."""


_FIRST = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, pid INTEGER NOT NULL, started_s REAL NOT NULL,
    last_commit_s REAL, closed_s REAL, found_open_s REAL
);
CREATE TABLE decisions (
    decision_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_s REAL NOT NULL, requested_model TEXT,
    chosen TEXT, reason TEXT, propensity REAL, price REAL, goal TEXT, fingerprint TEXT,
    expected_quality REAL, expected_cost_usd REAL, decision_s REAL, is_stream INTEGER NOT NULL, text TEXT
) WITHOUT ROWID;
CREATE TABLE results (
    decision_id TEXT PRIMARY KEY, end_s REAL NOT NULL, served TEXT, provider TEXT, is_replay INTEGER NOT NULL,
    input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, usage_estimated INTEGER NOT NULL,
    usd REAL, status INTEGER NOT NULL, error TEXT, attempts INTEGER NOT NULL, faults TEXT,
    latency_s REAL NOT NULL, first_byte_s REAL
) WITHOUT ROWID;
CREATE TABLE feedback (decision_id TEXT NOT NULL, time_s REAL NOT NULL, score REAL NOT NULL, source TEXT);
CREATE INDEX decisions_by_time ON decisions (time_s);
CREATE INDEX feedback_by_decision ON feedback (decision_id);
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id;
"""

_SECOND = """
CREATE TABLE traces (
    decision_id TEXT PRIMARY KEY, sequencer TEXT NOT NULL, ended TEXT, calls INTEGER NOT NULL,
    thoughts INTEGER NOT NULL, unknown_charges INTEGER NOT NULL, usd REAL NOT NULL, trace TEXT NOT NULL
) WITHOUT ROWID
"""

_THIRD = """
ALTER TABLE decisions ADD COLUMN key TEXT;
ALTER TABLE decisions ADD COLUMN tenant TEXT;
CREATE INDEX decisions_by_tenant ON decisions (tenant) WHERE tenant IS NOT NULL;
DROP VIEW requests;
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id
"""

_FOURTH = """
ALTER TABLE decisions ADD COLUMN rule TEXT;
DROP VIEW requests;
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id
"""

_FIFTH = """
ALTER TABLE decisions ADD COLUMN scores TEXT;
DROP VIEW requests;
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id
"""

_SIXTH = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL
)
"""

_SEVENTH = """
ALTER TABLE decisions ADD COLUMN branch TEXT;
ALTER TABLE decisions ADD COLUMN own TEXT;
ALTER TABLE decisions ADD COLUMN unit TEXT;
CREATE TABLE shadows (
    decision_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, share REAL NOT NULL, chosen TEXT, reason TEXT,
    propensity REAL, price REAL, expected_quality REAL, expected_cost_usd REAL, decision_s REAL, scores TEXT,
    error TEXT
) WITHOUT ROWID;
CREATE TABLE switches (
    time_s REAL NOT NULL, action TEXT NOT NULL, before TEXT NOT NULL, before_fingerprint TEXT NOT NULL,
    after TEXT NOT NULL, after_fingerprint TEXT NOT NULL, is_forced INTEGER NOT NULL, who TEXT, evidence TEXT
);
DROP VIEW requests;
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id
"""

_EIGHTH = """
ALTER TABLE decisions ADD COLUMN task TEXT;
ALTER TABLE decisions ADD COLUMN tags TEXT;
DROP VIEW requests;
CREATE VIEW requests AS
SELECT decisions.*, end_s, served, provider, is_replay, input_tokens, output_tokens, cached_tokens,
    usage_estimated, usd, status, error, attempts, faults, latency_s, first_byte_s
FROM decisions LEFT JOIN results ON results.decision_id = decisions.decision_id
"""

MIGRATIONS = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH, _SIXTH, _SEVENTH, _EIGHTH)
"""Script number n brings version n to n + 1; a released script never changes."""

_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_s REAL NOT NULL)"


def migrate(connection: sqlite3.Connection, *, now_s: float, where: str) -> None:
    """Bring the file to `VERSION`, all steps or none; raises `ConfigError` for a newer file.

    `connection` must be in autocommit mode.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_VERSIONS)
        found = _known_version(connection, where)
        for number in range(found, VERSION):
            for statement in filter(str.strip, MIGRATIONS[number].split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?, ?)", (number + 1, now_s))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def check_version(connection: sqlite3.Connection, *, where: str) -> None:
    """Raise `ConfigError` for a newer file; one without tables may become a ledger."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
        _known_version(connection, where)


def _known_version(connection: sqlite3.Connection, where: str) -> int:
    found = read_version(connection)
    if found > VERSION:
        raise ConfigError(
            sentence(
                f"the ledger {where!r} was written by a newer turnout",
                allowed=f"schema version up to {VERSION}",
                got=found,
                do="upgrade turnout, or name another ledger.path",
            )
        )
    return found


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version of an open ledger, 0 for an empty one."""
    version: int = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()[0]
    return version


@lru_cache(maxsize=256)
def insert_statement(
    row: type[msgspec.Struct], table: str, num_rows: int = 1, names: tuple[str, ...] | None = None
) -> str:
    """Return the INSERT of so many rows of a type, with its columns by name, or with these alone."""
    names = row.__struct_fields__ if names is None else names
    values = ", ".join([f"({', '.join('?' * len(names))})"] * num_rows)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {values}"
