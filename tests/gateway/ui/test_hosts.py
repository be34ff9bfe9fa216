"""Where hosts share a PostgreSQL: the page of all of them, their sessions, and their switches."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.gateway.client import ask, call
from tests.gateway.ledger_rows import decision, result
from tests.gateway.pool import make_deployment
from tests.gateway.servers import PostgresServer
from tests.gateway.test_shared import IDS, config_of, eventually, held
from tests.gateway.upstream import Upstream
from turnout.gateway import central, central_admin
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger import Ledger
from turnout.gateway.lifecycle import running
from turnout.gateway.promote import Switch, note_switch
from turnout.gateway.settings_shared import SharedSettings


def test_the_page_shows_all_hosts_and_this_one_alone_while_postgresql_is_away(
    upstream: Upstream,
    tmp_path: Path,
    postgres: PostgresServer,
    central_url: str,
) -> None:
    shared = SharedSettings(postgres=central_url)
    with ExitStack() as stack:
        hosts = []
        for name in ("a", "b"):
            config = config_of(upstream, tmp_path, name, shared)
            hosts.append(stack.enter_context(running(config, deployment=make_deployment())).base_url)
        roots = [host.removesuffix("/v1") for host in hosts]
        answers = [ask(hosts[number % 2], model=("small", "large")[number % 3 == 0]) for number in range(9)]
        answers += [ask(hosts[1]) for _ in range(3)]
        score = {"decision_id": answers[0].decision_id, "score": 0.5}
        given = call(roots[0], "/v1/feedback", method="POST", body=json.dumps(score).encode())
        assert given.status < 300, given.body
        eventually(lambda: held(central_url, "SELECT count(*) FROM turnout_feedback"), [(1,)])
        eventually(lambda: len(held(central_url, IDS)), 12)
        upstream.behave["small"] = "slow"
        with socket.create_connection(("127.0.0.1", urlsplit(hosts[1]).port or 0)) as waiting:
            body = b'{"model": "small", "messages": [{"role": "user", "content": "x"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n"
            waiting.sendall(head.encode() + body)
            eventually(lambda: len(held(central_url, IDS)), 13)
            data = call(roots[0], "/ui/data?span=15m").json
        assert (data["whose"], data["gateway"]["is_shared"]) == ("all hosts", True)
        bounds = "time_s >= {since_s} AND time_s < {until_s}".format(**data["span"])
        query = "SELECT count(*), sum(usd), sum(input_tokens)::bigint FROM turnout_requests"
        totals = data["totals"]
        assert (totals["requests"], totals["served"], totals["running"], totals["lost"]) == (13, 12, 1, 0)
        requests, usd, tokens = held(central_url, f"{query} WHERE {bounds}")[0]
        assert (requests, totals["input_tokens"]) == (13, tokens)
        assert totals["usd"] == pytest.approx(usd)
        assert sum(map(sum, data["timeline"]["counts"].values())) == 13
        assert sum(row["requests"] for row in data["models"]) == 12
        assert data["feedback"] == {"scores": 1, "mean": 0.5}
        # Each decision of either host is listed, and opens on both.
        for kind in ("all", "failed", "fell+back", "by+rule", "scored", "lost", "running"):
            found = call(roots[1], f"/ui/decisions?kind={kind}")
            assert found.status == 200, found.body
        listed = call(roots[1], "/ui/decisions").json["decisions"]
        assert {one["decision_id"] for one in listed} >= {answer.decision_id for answer in answers}
        opened = call(roots[1], f"/ui/decisions/{answers[-1].decision_id}").json
        assert opened["usd"] is not None
        assert opened["scores"]
        postgres.stop()
        time.sleep(1.5)
        alone = call(roots[0], "/ui/data?span=1h").json
        assert (alone["whose"], alone["totals"]["requests"]) == ("this host", 5)
        postgres.start()
        eventually(lambda: call(roots[0], "/ui/data?span=1h").json["whose"], "all hosts")


def test_what_a_killed_host_left_is_lost_and_not_running(central_url: str) -> None:
    with psycopg.connect(central_url, autocommit=True) as connection:
        central.make_tables(connection)
        central._tell_session(connection, "here", has_ended=False)
        central._tell_session(connection, "over", has_ended=False)
        central._tell_session(connection, "over", has_ended=True)
        connection.execute("INSERT INTO turnout_sessions VALUES ('silent', extract(epoch FROM now()) - 61)")
        assert central.sessions_at_work(connection) == ["here"]


def test_a_switch_of_deployments_reaches_postgresql(tmp_path: Path, central_url: str) -> None:
    path = tmp_path / "l.sqlite"
    ledger = Ledger(settings=LedgerSettings(path=str(path)))
    ledger.sender = central.Sender(url=central_url, path=path)
    ledger.open()
    switch = Switch(action="promote", path=path, text_before="", text_after="", before="old", after="new")
    for is_shared in (True, False):
        note_switch(
            path, switch, action="promote", now_s=5.0, fingerprints=("f", "g"), is_forced=True, who="me",
            evidence=None, is_shared=is_shared,
        )  # fmt: skip
    query = "SELECT time_s, action, before, after_fingerprint, is_forced, who FROM turnout_switches"
    eventually(lambda: held(central_url, query), [(5.0, "promote", "old", "g", True, "me")])
    ledger.close()
    assert central_admin.pull(central_url, tmp_path / "copy.sqlite") == 0
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("SELECT before, after FROM switches").fetchall() == [("old", "new")]


def test_no_row_of_one_client_holds_up_those_of_others(
    upstream: Upstream, tmp_path: Path, central_url: str
) -> None:
    """PostgreSQL takes no NUL in a text, and no whole number beyond 64 bits."""
    config = config_of(upstream, tmp_path, "a", SharedSettings(postgres=central_url))
    with running(config, deployment=make_deployment()) as ready:
        assert ask(ready.base_url, model="no\0body").status == 404
        last = ask(ready.base_url, model="small")
        eventually(lambda: len(held(central_url, IDS)), 2)
    names = held(central_url, "SELECT requested_model FROM turnout_decisions ORDER BY time_s")
    assert names == [("no\ufffdbody",), ("small",)]
    notes = [
        (1, "a", *central.outbox_row(decision(1))),
        (2, "b", *central.outbox_row(result(1, attempts=2**63))),
        (3, "c", *central.outbox_row(decision(2))),
    ]
    with psycopg.connect(central_url, autocommit=True) as connection:
        central._store(connection, notes)
    assert {name for name, _ in held(central_url, IDS)} >= {"000001", "000002", last.decision_id}
