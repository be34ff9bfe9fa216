"""A ledger filled with rows of every kind, and a deployment with a frontier whose candidates they name."""

from __future__ import annotations

import functools
import json
import random
import sqlite3
from pathlib import Path

import msgspec

from tests.gateway.ledger_rows import write_rows
from turnout.core import Goal
from turnout.datasets import synthetic
from turnout.gateway.schema import DecisionRow, FeedbackRow, ResultRow
from turnout.policies import Deployment
from turnout.training import train

DAY_S = 86_400.0


@functools.cache
def deployment() -> Deployment:
    """Return a trained deployment of a few candidates."""
    table = synthetic(num_queries=400, seed=3).table
    return train(table.select(split="train"), Goal(quality_floor=0.95), router="ridge")


_MANY = 2_000
"""Beyond so many, rows are copied inside the database, each a little later and dearer than its original."""

_ID = {"decision_id": "decision_id || printf('%04x', n)"}
_COPIED: tuple[tuple[type[msgspec.Struct], str, dict[str, str]], ...] = (
    (DecisionRow, "decisions", {"time_s": "time_s + n * 1e-3", "decision_s": "decision_s * (1 + n / 97.0)"}),
    (
        ResultRow,
        "results",
        {
            "input_tokens": "input_tokens + n",
            "usd": "usd * (1 + n / 89.0)",
            "latency_s": "latency_s * (1 + n / 83.0)",
        },
    ),
    (FeedbackRow, "feedback", {}),
)
"""Row, table, and how a copy's columns differ from those of its original."""


def fill(path: Path, count: int, *, until_s: float, length_s: float = DAY_S, seed: int = 0) -> None:
    """Write `count` requests that came in before `until_s`: served, failed, running, ruled, replayed."""
    first = min(count, _MANY)
    _fill(path, first, until_s=until_s - 1.0, length_s=length_s - 2.0, seed=seed)
    if count > first:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("CREATE TEMP TABLE copies (n INTEGER)")
        connection.executemany("INSERT INTO copies VALUES (?)", [(n,) for n in range(1, count // first)])
        connection.execute("BEGIN")
        for kind, table, changed in _COPIED:
            columns = {name: (_ID | changed).get(name, name) for name in kind.__struct_fields__}
            told = f"SELECT {', '.join(columns.values())} FROM {table}, copies"
            connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) {told}")
        connection.execute("COMMIT")
        connection.close()


def _fill(path: Path, count: int, *, until_s: float, length_s: float, seed: int) -> None:
    rng = random.Random(seed)
    made = [_request(rng, number, count, until_s, length_s) for number in range(count)]
    write_rows(path, [row for rows in made for row in rows if row is not None], now_s=until_s)


def _request(
    rng: random.Random, number: int, count: int, until_s: float, length_s: float
) -> tuple[DecisionRow, ResultRow | None, FeedbackRow | None]:
    names = [candidate.name for candidate in deployment().candidates]
    # Later more often than earlier, as traffic that grows.
    time_s = until_s - length_s * (1 - ((number + rng.random()) / max(count, 1)) ** 0.7)
    decision_id = f"{int(time_s * 1000):012x}{number:016x}"
    place = min(int(rng.expovariate(0.9)), len(names) - 1)
    chosen = names[place]
    kind = rng.random()
    served = names[(place + 1) % len(names)] if kind < 0.03 else chosen
    scores = {
        name: [round(rng.uniform(0.4, 0.95), 4), round(1e-4 * 3.0**column * rng.uniform(0.5, 2), 8)]
        for column, name in enumerate(names)
    }
    is_ruled, is_refused, is_running = 0.10 < kind < 0.16, 0.16 < kind < 0.19, 0.19 < kind < 0.192
    decision = DecisionRow(
        decision_id=decision_id,
        session_id="s",
        time_s=time_s,
        requested_model="turnout/auto",
        chosen=None if is_refused else chosen,
        reason=None if is_refused else "highest quality minus price x usd",
        propensity=None if is_refused else 1.0,
        price=None if is_refused else 120.0,
        goal=None if is_refused else "at least 95.0% of the best single model's quality",
        fingerprint="0123456789abcdef",
        expected_quality=scores[chosen][0],
        expected_cost_usd=scores[chosen][1],
        decision_s=rng.lognormvariate(-8.9, 0.4),
        is_stream=rng.random() < 0.5,
        text=None,
        rule="no attacks" if is_refused else "refunds" if is_ruled else None,
        scores=None if is_refused else json.dumps(scores),
    )
    if is_running:
        return decision, None, None
    result = _result(rng, decision, served, scores, kind, place)
    given = None
    if result.served is not None and kind > 0.9:
        given = FeedbackRow(
            decision_id=decision_id, time_s=time_s + 60, score=float(rng.random() < 0.8), source="thumb"
        )
    return decision, result, given


def _result(
    rng: random.Random, decision: DecisionRow, served: str, scores: dict, kind: float, place: int
) -> ResultRow:
    chosen, is_refused = decision.chosen, decision.scores is None
    latency_s = rng.lognormvariate(-0.4 + 0.35 * place, 0.6)
    tokens_in, tokens_out = rng.randint(20, 3000), rng.randint(5, 900)
    is_failed = 0.08 < kind < 0.10
    status = 403 if is_refused else 502 if is_failed else 200
    is_served = status == 200
    return ResultRow(
        decision_id=decision.decision_id,
        end_s=decision.time_s + latency_s,
        served=served if is_served else None,
        provider="main" if is_served else None,
        is_replay=0.2 < kind < 0.22,
        input_tokens=tokens_in if is_served else None,
        output_tokens=tokens_out if is_served else None,
        cached_tokens=tokens_in // 3 if is_served and rng.random() < 0.3 else None,
        usage_estimated=0.22 < kind < 0.25,
        usd=None if not is_served or 0.25 < kind < 0.26 else scores[served][1] * rng.uniform(0.7, 1.3),
        status=status,
        error={403: "blocked_by_rule", 502: "upstream_error"}.get(status),
        attempts=2 if served != chosen or is_failed else 0 if is_refused else 1,
        faults=f"{chosen}: upstream_timeout" if served != chosen else None,
        latency_s=latency_s,
        first_byte_s=latency_s * rng.uniform(0.2, 0.6) if is_served else None,
    )
