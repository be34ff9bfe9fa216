"""Who made what is remembered, up to a bound, by one process or by all that share a store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.servers import RedisServer
from turnout.gateway.pins import Pins
from turnout.gateway.pins_redis import RedisPins
from turnout.gateway.pins_store import Pin, PinStore, SqlitePins

Made = Callable[[], PinStore]
A, B = Pin(maker="small"), Pin(maker="large", tenant="two")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with contextlib.closing(asyncio.new_event_loop()) as made:
        yield made


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Return what opens the same store again."""
    if request.param == "sqlite":
        return lambda: SqlitePins(path=tmp_path / "pins.sqlite")
    server: RedisServer = request.getfixturevalue("redis")
    from redis.asyncio import Redis

    return lambda: RedisPins(client=Redis.from_url(server.url), prefix=tmp_path.name)


def test_the_first_known_name_decides(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        pins = Pins()
        await pins.remember(["a"], A)
        await pins.remember(["b"], B)
        assert await pins.find(["x", "b", "a"]) is B
        assert await pins.find(["x"]) is None

    loop.run_until_complete(run())


def test_what_was_used_longest_ago_is_forgotten(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        pins = Pins(capacity=3)
        await pins.remember(["a", "b", "c"], A)
        assert await pins.find(["a"]) is A
        await pins.remember(["d"], B)
        assert len(pins) == 3
        assert [await pins.find([name]) for name in "abcd"] == [A, None, A, B]

    loop.run_until_complete(run())


def test_another_process_knows_what_one_has_seen(make: Made, loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        here, there = Pins(), Pins()
        here.store, there.store = make(), make()
        await here.remember(["a", "a" * 5000], A)
        await here.remember(["b"], A)
        await there.remember(["b"], B)  # the last word counts
        for name, pin in (("a", A), ("a" * 5000, A), ("b", B)):
            assert await there.find(["x", name]) == pin
        await here.store.close()
        await there.store.close()
        later = Pins()
        later.store = make()
        assert await later.find(["a"]) == A
        assert await later.find(["x"]) is None
        await later.store.close()

    loop.run_until_complete(run())


def test_a_store_that_fails_leaves_the_memory(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pins.sqlite").write_bytes(b"no database at all" * 100)

    async def run() -> None:
        pins = Pins()
        pins.store = SqlitePins(path=tmp_path / "pins.sqlite")
        await pins.remember(["a"], A)
        assert await pins.find(["a"]) is A
        assert await pins.find(["x"]) is None
        await pins.store.close()

    with caplog.at_level(logging.WARNING):
        loop.run_until_complete(run())
    assert len(caplog.records) == 1


def test_an_away_redis_is_said_once(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    from redis.asyncio import Redis

    async def run() -> None:
        store = RedisPins(client=Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2))
        await store.note([b"a"], A)
        assert await store.find(b"a") is None
        await store.close()

    with caplog.at_level(logging.WARNING):
        loop.run_until_complete(run())
    assert len(caplog.records) == 1


def test_a_file_does_not_grow_without_end(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnout.gateway.pins_store.CAPACITY", 100)

    async def run() -> None:
        store = SqlitePins(path=tmp_path / "pins.sqlite")
        for number in range(2000):
            await store.note([b"%d" % number], A)
        assert await store.find(b"0") is None
        assert await store.find(b"1999") == A
        await store.close()

    loop.run_until_complete(run())
    with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM pins").fetchone() == (100,)


def test_how_long_something_is_lasts_and_older_files_and_entries_are_read(
    tmp_path: Path, redis: RedisServer
) -> None:
    long = Pin(maker="small", tenant="ann", tokens=7)
    with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite")) as connection, connection:
        connection.execute(
            "CREATE TABLE pins (id INTEGER PRIMARY KEY, name BLOB UNIQUE, maker TEXT, tenant TEXT)"
        )
        connection.execute("INSERT INTO pins (name, maker, tenant) VALUES (?, 'large', 'bob')", (b"old",))

    from redis.asyncio import Redis

    async def test() -> None:
        client = Redis.from_url(redis.url)
        await client.set("long:pin:" + b"old".hex(), b'["large","bob"]')
        for store in (SqlitePins(path=tmp_path / "pins.sqlite"), RedisPins(client=client, prefix="long")):
            assert await store.find(b"old") == Pin(maker="large", tenant="bob")
            await store.note([b"new"], long)
            assert await store.find(b"new") == long
            await store.close()

    asyncio.run(test())


def test_a_lock_on_the_file_stops_nobody_and_what_was_noted_is_written_after_it(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    """The file stays in use, and every note is there in its order."""

    async def run() -> None:
        store = SqlitePins(path=tmp_path / "pins.sqlite")
        await store.note([b"before"], A)
        with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began_s = time.monotonic()
            for number in range(20):
                await store.note([b"%d" % number], A)
            assert await store.find(b"before") == A
            assert time.monotonic() - began_s < 0.5
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
        until_s = time.monotonic() + 5
        while await store.find(b"19") is None and time.monotonic() < until_s:  # noqa: ASYNC110 (a file)
            await asyncio.sleep(0.01)
        assert [await store.find(b"%d" % number) for number in range(20)] == [A] * 20
        await store.close()

    loop.run_until_complete(run())
