"""Every number of the page equals a query on the ledger, with 0, 10 and 100,000 rows."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.client import call, check_advice
from tests.gateway.settings import make_config
from tests.gateway.ui.filled import deployment, fill
from turnout.gateway.lifecycle import running
from turnout.gateway.ui.decisions import FILTERS, PAGE

COUNTS = [0, 10, 100_000]
IN_SPAN = "time_s >= :since_s AND time_s < :until_s"


class Look:
    """A gateway, what its page is told of a span, and the ledger to check it against."""

    def __init__(self, base_url: str, ledger: Path, count: int) -> None:
        self.base_url, self.ledger, self.count = base_url.removesuffix("/v1"), ledger, count
        self.data = self.get("/ui/data?span=24h")
        self.bounds = self.data["span"]

    def get(self, path: str) -> Any:
        answer = call(self.base_url, path)
        assert answer.status == 200, answer.body
        return answer.json

    def query(self, sql: str, **values: Any) -> Any:
        connection = sqlite3.connect(self.ledger)
        try:
            return connection.execute(sql, {**self.bounds, **values}).fetchall()
        finally:
            connection.close()

    def one(self, sql: str, where: str = "1", **values: Any) -> Any:
        return self.query(f"SELECT {sql} FROM requests WHERE {IN_SPAN} AND {where}", **values)[0][0]


@pytest.fixture(scope="module", params=COUNTS)
def look(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    ledger = tmp_path_factory.mktemp("ui") / "ledger.sqlite"
    fill(ledger, request.param, until_s=time.time())
    with running(make_config("http://127.0.0.1:1/v1", ledger), deployment=deployment()) as ready:
        yield Look(ready.base_url, ledger, request.param)


def test_the_sums_are_those_of_the_ledger(look: Look) -> None:
    totals = look.data["totals"]
    assert totals["requests"] == look.one("count(*)") == look.count
    # No session of the ledger is at work but the gateway's own, which was asked nothing.
    assert (totals["running"], totals["lost"]) == (0, look.one("count(*)", "status IS NULL"))
    assert totals["failed"] == look.one("count(*)", "status >= 400 OR error IS NOT NULL")
    assert totals["served"] == look.one("count(*)", "status < 400 AND error IS NULL")
    parts = [totals[name] for name in ("served", "failed", "running", "lost")]
    assert sum(parts) == totals["requests"], "each request is one of them"
    assert totals["unserved"] == look.one("count(*)", "served IS NULL")
    assert totals["fell_back"] == look.one("count(*)", "served IS NOT NULL AND served != chosen")
    assert look.count < 100 or totals["fell_back"] < look.one("count(*)", "attempts > 1")
    assert totals["unpriced"] == look.one("count(*)", "served IS NOT NULL AND usd IS NULL")
    assert totals["usd"] == pytest.approx(look.one("total(usd)", "NOT is_replay"))
    assert totals["replayed_usd"] == pytest.approx(look.one("total(usd)", "is_replay"))
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert totals[name] == look.one(f"coalesce(sum({name}), 0)")


def test_the_models_are_those_that_served(look: Look) -> None:
    models = {row["name"]: row for row in look.data["models"]}
    served = look.query(f"SELECT DISTINCT served FROM requests WHERE {IN_SPAN} AND served IS NOT NULL")
    assert sorted(models) == sorted(name for (name,) in served)
    for name, row in models.items():
        assert row["requests"] == look.one("count(*)", "served = :name", name=name)
        spend = look.one("sum(usd)", "served = :name", name=name)
        assert row["usd"] == (None if spend is None else pytest.approx(spend))
    totals = look.data["totals"]
    assert sum(row["requests"] for row in models.values()) == totals["requests"] - totals["unserved"]


def test_the_saving_compares_expectations_with_expectations(look: Look) -> None:
    saving, single = look.data["saving"], look.data["curve"]["best"]
    good = "status < 400 AND error IS NULL AND scores IS NOT NULL"
    pairs = [
        (json.loads(scores).get(served, [None, None])[1], json.loads(scores).get(single, [None, None])[1])
        for served, scores in look.query(f"SELECT served, scores FROM requests WHERE {IN_SPAN} AND {good}")
    ]
    known = [(own, other) for own, other in pairs if own is not None and other is not None]
    assert (saving["single"], saving["requests"]) == (single, len(known))
    assert saving["usd"] == pytest.approx(math.fsum(own for own, _ in known))
    assert saving["single_usd"] == pytest.approx(math.fsum(other for _, other in known))
    if known:
        assert saving["share"] == pytest.approx(1 - saving["usd"] / saving["single_usd"])
    else:
        assert saving["share"] is None


def test_a_pool_in_which_the_best_single_model_serves_everybody_saves_nothing(tmp_path: Path) -> None:
    """However far what was spent is from what was expected."""
    ledger = tmp_path / "ledger.sqlite"
    fill(ledger, 40, until_s=time.time())
    frontier = deployment().frontier
    assert frontier is not None
    single = deployment().candidates[frontier.best].name
    with contextlib.closing(sqlite3.connect(ledger)) as connection, connection:
        everybody = "served = :single, usd = 7 * coalesce(usd, 1), status = 200, error = NULL"
        connection.execute(f"UPDATE results SET {everybody}", {"single": single})
    with running(make_config("http://127.0.0.1:1/v1", ledger), deployment=deployment()) as ready:
        look = Look(ready.base_url, ledger, 40)
    saving = look.data["saving"]
    scored = look.one("count(*)", "scores IS NOT NULL AND status = 200")
    expected = look.one(f"sum(json_extract(scores, '$.{single}[1]'))", "status = 200")
    assert (saving["requests"], saving["share"]) == (scored, 0.0)
    assert saving["usd"] == saving["single_usd"] == pytest.approx(expected)
    assert scored > 30


def test_the_slots_hold_every_request_once(look: Look) -> None:
    counts = look.data["timeline"]["counts"]
    assert sum(map(sum, counts.values())) == look.count
    width = (look.bounds["until_s"] - look.bounds["since_s"]) / 60
    for name, slots in counts.items():
        begin = look.bounds["since_s"] + 59 * width
        own = "coalesce(served, '') = :name"
        last = look.one("count(*)", f"{own} AND time_s >= :begin", name=name, begin=begin)
        assert abs(slots[59] - last) <= 1  # the edge itself is a matter of rounding
        assert sum(slots) == look.one("count(*)", own, name=name)


@pytest.mark.parametrize("column", ["latency_s", "first_byte_s", "decision_s"])
def test_a_percentile_is_the_value_at_its_rank(look: Look, column: str) -> None:
    found = look.data["speeds"][column]
    good = f"served IS NOT NULL AND status < 400 AND error IS NULL AND {column} IS NOT NULL"
    assert found["count"] == look.one("count(*)", good)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        rank = math.ceil(share * found["count"]) - 1
        rows = look.query(
            f"SELECT {column} FROM requests WHERE {IN_SPAN} AND {good} ORDER BY 1 LIMIT 1 OFFSET :rank",
            rank=max(rank, 0),
        )
        assert found[name] == (rows[0][0] if rows else None)


def test_a_models_percentiles_are_its_own(look: Look) -> None:
    for row in look.data["speeds"]["models"]:
        good = "served = :name AND status < 400"
        count = look.one("count(*)", good, name=row["name"])
        assert row["latency_s"]["count"] == count
        rows = look.query(
            f"SELECT latency_s FROM requests WHERE {IN_SPAN} AND {good} ORDER BY 1 LIMIT 1 OFFSET :rank",
            name=row["name"],
            rank=math.ceil(0.9 * count) - 1,
        )
        assert row["latency_s"]["p90"] == rows[0][0]


@pytest.mark.parametrize(("key", "column"), [("dials", "goal"), ("rules", "rule"), ("errors", "error")])
def test_dials_rules_and_errors_are_counted(look: Look, key: str, column: str) -> None:
    for row in look.data[key]:
        assert row["requests"] == look.one("count(*)", f"{column} = :name", name=row["name"])
    assert len(look.data[key]) == look.one(f"count(DISTINCT {column})")


def test_the_feedback_is_that_of_the_spans_decisions(look: Look) -> None:
    query = f"""SELECT count(*), avg(score) FROM feedback
        WHERE decision_id IN (SELECT decision_id FROM decisions WHERE {IN_SPAN})"""
    count, mean = look.query(query)[0]
    found = look.data["feedback"]
    assert found["scores"] == count
    assert found["mean"] == (None if mean is None else pytest.approx(mean))


@pytest.mark.parametrize("kind", FILTERS)
def test_the_list_goes_through_every_decision_once_in_order(look: Look, kind: str) -> None:
    condition = {"running": "FALSE", "lost": "status IS NULL"}.get(kind, FILTERS[kind])
    condition = condition.replace("{feedback}", "feedback")
    query = f"SELECT decision_id FROM requests WHERE {condition} ORDER BY time_s DESC, decision_id DESC"
    expected = [name for (name,) in look.query(f"{query} LIMIT {2 * PAGE + 5}")]
    seen: list[str] = []
    path = f"/ui/decisions?kind={kind.replace(' ', '+')}"
    page = look.get(path)
    for _ in range(3):
        seen += [row["decision_id"] for row in page["decisions"]]
        if page["next"] is None:
            assert len(seen) == len(look.query(query))
            break
        page = look.get(f"{path}&before={page['next']['time_s']!r}&id={page['next']['id']}")
    assert seen[: len(expected)] == expected[: len(seen)]


def test_an_opened_decision_holds_its_row_and_its_reasons(look: Look) -> None:
    ids = look.query("SELECT decision_id FROM requests ORDER BY random() LIMIT 20")
    for (decision_id,) in ids:
        found = look.get(f"/ui/decisions/{decision_id}")
        usd, scores, price = look.query(
            "SELECT usd, scores, price FROM requests WHERE decision_id = :id", id=decision_id
        )[0]
        assert found["usd"] == usd
        expected = {} if scores is None else json.loads(scores)
        assert {row["name"]: [row["quality"], row["usd"]] for row in found["scores"]} == expected
        ranks = [row["score"] for row in found["scores"]]
        assert ranks == sorted(ranks, reverse=True)
        for row in found["scores"]:
            assert row["score"] == pytest.approx(row["quality"] - price * row["usd"])


def test_the_curve_is_the_deployments_own(look: Look) -> None:
    curve, own = look.data["curve"], deployment()
    plan = own.plan(None)
    assert (curve["dial"]["quality"], curve["dial"]["usd_per_1k"]) == (plan.quality, plan.usd_per_1k)
    assert len(curve["singles"]) == len(own.candidates)
    costs = [point["usd_per_1k"] for point in curve["router"]]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/ui/data?span=2h", 400, "invalid_query"),
        ("/ui/decisions?kind=none", 400, "invalid_query"),
        ("/ui/decisions?before=x", 400, "invalid_query"),
        ("/ui/decisions/nothing", 404, "decision_not_found"),
        ("/ui/passwd", 404, "unknown_url"),
        ("/ui/..%2fendpoints.py", 404, "unknown_url"),
        ("/ui/../endpoints.py", 404, "unknown_url"),
    ],
)
def test_a_wrong_look_is_one_sentence(look: Look, path: str, status: int, code: str) -> None:
    answer = call(look.base_url, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    check_advice(answer.error["message"])


def test_the_page_may_load_nothing_from_elsewhere(look: Look) -> None:
    answer = call(look.base_url, "/ui")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.body.isascii()
    assert b"http" not in answer.body.replace(b"http-equiv", b"")
