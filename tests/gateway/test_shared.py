"""Gateways on several hosts share a real Redis and a real PostgreSQL, and live through their absence."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, rows
from tests.gateway.ledger_rows import decision, result
from tests.gateway.pool import make_deployment
from tests.gateway.servers import PostgresServer, RedisServer
from tests.gateway.settings import make_config
from tests.gateway.test_keys import SECRET, hashed
from tests.gateway.upstream import Upstream
from turnout.core import ConfigError, ManualClock
from turnout.gateway import central, central_admin
from turnout.gateway.config import BreakerSettings, Config, LedgerSettings
from turnout.gateway.ledger import Ledger
from turnout.gateway.lifecycle import running
from turnout.gateway.schema import FeedbackRow
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_shared import SharedSettings

replace = msgspec.structs.replace
HEADERS = {"authorization": f"Bearer {SECRET}"}
FREE = {"authorization": "Bearer tk-free"}


def config_of(upstream: Upstream, folder: Path, name: str, shared: SharedSettings, **keys: Any) -> Config:
    """Return the settings of one host: files of its own, and the servers that are shared."""
    return replace(
        make_config(upstream.base_url, folder / f"{name}.sqlite"),
        shared=shared,
        auth=AuthSettings(path=str(folder / f"{name}-keys.sqlite"), refresh_s=0.05),
        keys=keys,
    )


@pytest.fixture
def shared(redis: RedisServer) -> SharedSettings:
    return SharedSettings(redis=redis.url, redis_prefix=secrets.token_hex(4), redis_timeout_s=0.4)


def eventually(check: Callable[[], Any], wanted: Any) -> None:
    for _ in range(300):
        if check() == wanted:
            return
        time.sleep(0.02)
    assert check() == wanted


def test_a_budget_and_a_rate_are_one_for_all_hosts(
    upstream: Upstream, tmp_path: Path, shared: SharedSettings
) -> None:
    most = (20 * 0.1 + 8 * 0.4) / 1e6
    limits = {
        "team": KeySettings(sha256=hashed(), budget_usd=4.5 * most),
        "fast": KeySettings(sha256=hashed("tk-fast"), requests_per_min=5),
    }
    upstream.behave["small"] = "late"
    with ExitStack() as stack, ThreadPoolExecutor(12) as pool:
        hosts = [
            stack.enter_context(
                running(config_of(upstream, tmp_path, name, shared, **limits), deployment=make_deployment())
            )
            for name in ("a", "b")
        ]

        def one(number: int, secret: str) -> int:
            headers = {"authorization": f"Bearer {secret}"}
            host = hosts[number % 2].base_url
            return ask(host, model="small", max_tokens=8, headers=headers).status

        spent = Counter(pool.map(lambda number: one(number, SECRET), range(12)))
        asked = Counter(pool.map(lambda number: one(number, "tk-fast"), range(12)))
    assert spent == {200: 4, 429: 8}
    assert asked == {200: 5, 429: 7}


def test_a_breaker_that_opens_on_one_host_is_open_on_all(
    upstream: Upstream, tmp_path: Path, shared: SharedSettings
) -> None:
    with ExitStack() as stack:
        hosts = []
        for name in ("a", "b"):
            config = config_of(upstream, tmp_path, name, shared)
            config = replace(config, breakers=BreakerSettings(failures=1, open_s=30.0))
            hosts.append(stack.enter_context(running(config, deployment=make_deployment())).base_url)
        upstream.behave["small"] = "500"
        assert ask(hosts[0], model="small").error["code"] == "upstream_error"
        upstream.behave["small"] = "well"

        def states() -> list[str]:
            root = hosts[1].removesuffix("/v1")
            found = call(root, "/admin/breakers").json["breakers"]
            return [one["state"] for one in found if one["model"] == "small"]

        eventually(states, ["open"])
        assert ask(hosts[1], model="small").error["code"] == "breaker_open"
        assert ask(hosts[1], model="large").status == 200


def test_a_redis_that_hangs_or_dies_stops_only_who_is_counted(
    upstream: Upstream, tmp_path: Path, redis: RedisServer, shared: SharedSettings
) -> None:
    keys = {
        "team": KeySettings(sha256=hashed(), requests_per_min=1000),
        "free": KeySettings(sha256=hashed("tk-free")),
    }
    config = config_of(upstream, tmp_path, "a", shared, **keys)
    with running(config, deployment=make_deployment()) as ready:
        assert ask(ready.base_url, headers=HEADERS).status == 200
        redis.pause()
        try:
            started_s = time.monotonic()
            refused = ask(ready.base_url, headers=HEADERS)
            waited_s = time.monotonic() - started_s
            free = ask(ready.base_url, headers=FREE)
        finally:
            redis.go_on()
        assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
        assert refused.headers["retry-after"] == "1"
        assert waited_s < 3.0
        check_advice(refused.error["message"])
        assert free.status == 200
        redis.stop()
        assert ask(ready.base_url, headers=HEADERS).status == 503
        assert ask(ready.base_url, headers=FREE).status == 200
        redis.start()
        eventually(lambda: ask(ready.base_url, headers=HEADERS).status, 200)


def test_requests_may_pass_uncounted_where_the_settings_say_so(
    upstream: Upstream, tmp_path: Path, redis: RedisServer, shared: SharedSettings
) -> None:
    keys = {"team": KeySettings(sha256=hashed(), requests_per_min=2, budget_usd=1.0)}
    config = config_of(upstream, tmp_path, "a", replace(shared, fail_open=True), **keys)
    with running(config, deployment=make_deployment()) as ready:
        redis.stop()
        try:
            assert [ask(ready.base_url, headers=HEADERS).status for _ in range(3)] == [200] * 3
        finally:
            redis.start()
        eventually(lambda: ask(ready.base_url, headers=HEADERS).status, 429)


def held(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


IDS = "SELECT decision_id, status FROM turnout_requests ORDER BY decision_id"


def test_rows_of_all_hosts_come_together_each_once_though_postgresql_was_away(
    upstream: Upstream, tmp_path: Path, postgres: PostgresServer, central_url: str
) -> None:
    shared = SharedSettings(postgres=central_url)
    answers: list[Answer] = []
    with ExitStack() as stack:
        hosts = []
        for name in ("a", "b"):
            config = config_of(upstream, tmp_path, name, shared)
            hosts.append(stack.enter_context(running(config, deployment=make_deployment())).base_url)
        answers += [ask(hosts[number % 2], model="small") for number in range(10)]
        eventually(lambda: len(held(central_url, IDS)), 10)
        postgres.stop()
        answers += [ask(hosts[number % 2], model="small") for number in range(10)]
        assert {answer.status for answer in answers} == {200}
        postgres.start()
        answers += [ask(hosts[number % 2], model="large") for number in range(4)]
    expected = sorted((answer.decision_id, 200) for answer in answers)
    assert held(central_url, IDS) == expected
    local = rows(tmp_path / "a.sqlite") + rows(tmp_path / "b.sqlite")
    usd = held(central_url, "SELECT sum(usd), count(DISTINCT session_id) FROM turnout_requests")[0]
    assert usd == (pytest.approx(sum(entry["usd"] for entry in local)), 2)


def test_what_could_not_be_sent_before_the_end_is_sent_after_the_next_start(
    upstream: Upstream, tmp_path: Path, postgres: PostgresServer, central_url: str
) -> None:
    config = config_of(upstream, tmp_path, "a", SharedSettings(postgres=central_url))
    with running(config, deployment=make_deployment()) as ready:
        postgres.stop()
        answer = ask(ready.base_url)
    postgres.start()
    with running(config, deployment=make_deployment()):
        eventually(lambda: held(central_url, IDS), [(answer.decision_id, 200)])


def test_a_row_that_is_sent_twice_is_the_same_row(tmp_path: Path, central_url: str) -> None:
    """A sender that dies between PostgreSQL's commit and the end of its note sends the same again."""
    path = tmp_path / "l.sqlite"
    ledger = Ledger(settings=LedgerSettings(path=str(path)), clock=ManualClock(start_s=1.0))
    ledger.sender = central.Sender(url=central_url, path=path)
    original = central.Sender._send_some

    def forgetful(self: central.Sender, local: Any, connection: Any) -> bool:
        number = local.execute("SELECT coalesce(max(number), 0) FROM outbox").fetchone()[0]
        notes = local.execute("SELECT * FROM outbox").fetchall()
        sent = original(self, local, connection)
        if number and not getattr(self, "has_died", False):
            self.has_died = True  # type: ignore[attr-defined]
            local.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?)", notes)
            raise psycopg.OperationalError("the line was cut")
        return sent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(central.Sender, "_send_some", forgetful)
        ledger.open()
        ledger.add(decision(1, tenant="shop"))
        ledger.add(result(1))
        for source in ("judge", "judge"):
            ledger.add(FeedbackRow(decision_id="000001", time_s=2.0, score=0.5, source=source))
        eventually(lambda: held(central_url, IDS), [("000001", 200)])
        ledger.close()
    assert held(central_url, "SELECT count(*) FROM turnout_feedback") == [(2,)]
    assert held(central_url, IDS) == [("000001", 200)]
    assert central_admin.forget(central_url, "shop") == 1
    assert held(central_url, "SELECT count(*) FROM turnout_feedback") == [(0,)]
    assert held(central_url, IDS) == []


def test_tables_of_an_older_turnout_get_the_columns_that_are_new(central_url: str) -> None:
    with psycopg.connect(central_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE turnout_decisions (decision_id TEXT PRIMARY KEY, time_s FLOAT8)")
        connection.execute("INSERT INTO turnout_decisions VALUES ('old', 1.0)")
        central.make_tables(connection)
        central.make_tables(connection)
    assert held(central_url, "SELECT decision_id, tenant, status FROM turnout_requests") == [
        ("old", None, None)
    ]


def test_keys_of_postgresql_open_every_host_until_they_are_revoked(
    upstream: Upstream, tmp_path: Path, postgres: PostgresServer, central_url: str
) -> None:
    import asyncio

    from turnout.gateway.key_admin import create_key, list_keys, revoke_key

    shared = SharedSettings(postgres=central_url)
    configs = [config_of(upstream, tmp_path, name, shared) for name in ("a", "b")]
    configs = [replace(one, auth=replace(one.auth, required=True)) for one in configs]
    with ExitStack() as stack:
        hosts = [stack.enter_context(running(one, deployment=make_deployment())).base_url for one in configs]
        secret = asyncio.run(create_key(configs[0], "team", {"models": ["small"]}))
        headers = {"authorization": f"Bearer {secret}"}
        assert [ask(host, model="small", headers=headers).status for host in hosts] == [200, 200]
        postgres.stop()
        # Who was let in a moment ago still is; who is not known cannot be told apart now.
        time.sleep(0.1)
        assert ask(hosts[0], model="small", headers=headers).status == 200
        unknown = ask(hosts[0], headers={"authorization": "Bearer tk-other"})
        assert (unknown.status, unknown.error["code"]) == (503, "keys_unavailable")
        postgres.start()
        eventually(lambda: ask(hosts[0], headers={"authorization": "Bearer tk-other"}).status, 401)
        asyncio.run(revoke_key(configs[1], "team"))
        eventually(lambda: {ask(host, model="small", headers=headers).status for host in hosts}, {401})
        assert [line.state for line in asyncio.run(list_keys(configs[0]))] == ["revoked"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"redis": "redis://:secret@127.0.0.1:1/0"}, "'shared.redis' holds a password"),
        ({"postgres": "postgresql://me:secret@h/db"}, "'shared.postgres' holds a password"),
        ({"redis": "http://127.0.0.1"}, "no reference"),
        ({"redis": "redis://127.0.0.1:1/0"}, "'shared.redis' does not answer"),
        ({"postgres": "postgresql://127.0.0.1:1/db"}, "'shared.postgres' cannot be"),
        ({"postgres": "env:TURNOUT_NOT_SET"}, "TURNOUT_NOT_SET"),
    ],
)
def test_what_is_shared_must_be_there_at_the_start(
    upstream: Upstream, tmp_path: Path, settings: dict, words: str
) -> None:
    config = config_of(upstream, tmp_path, "a", SharedSettings(**settings))
    for required in (True, False):
        config = replace(config, auth=replace(config.auth, required=required))
        with pytest.raises(ConfigError, match=words) as caught, running(config, deployment=make_deployment()):
            pass
        assert "secret@" not in str(caught.value)
        check_advice(str(caught.value))


def test_a_redis_that_is_away_at_the_start_is_waited_for_where_the_settings_say_so(
    upstream: Upstream, tmp_path: Path, redis: RedisServer, shared: SharedSettings
) -> None:
    keys = {"team": KeySettings(sha256=hashed(), requests_per_min=2)}
    config = config_of(upstream, tmp_path, "a", replace(shared, fail_open=True), **keys)
    redis.stop()
    try:
        with running(config, deployment=make_deployment()) as ready:
            assert any("uncounted" in notice for notice in ready.notices)
            assert [ask(ready.base_url, headers=HEADERS).status for _ in range(4)] == [200] * 4
            redis.start()
            eventually(lambda: ask(ready.base_url, headers=HEADERS).status, 429)
    finally:
        if redis.process is None:
            redis.start()
