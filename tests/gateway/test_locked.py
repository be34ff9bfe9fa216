"""A lock on the file of keys stops nobody who does not need it, and no spend is lost by one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.gateway.client import ask, call, row
from tests.gateway.pool import make_deployment
from tests.gateway.test_keys import HEADERS_OF, SMALL_USD, hashed, make
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.settings_keys import KeySettings

FREE = {"authorization": "Bearer tk-another"}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def ready(upstream: Upstream, tmp_path: Path) -> Iterator[Ready]:
    """A gateway with a key that has a budget and rates, and one that has none."""
    team = KeySettings(sha256=hashed(), budget_usd=1.0, requests_per_min=10_000, tokens_per_min=10_000_000)
    config = make(upstream, tmp_path, team=team, free=KeySettings(sha256=hashed("tk-another")))
    with running(config, deployment=make_deployment()) as ready:
        yield ready


def spent(path: Path) -> tuple[float, float]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT total(spent_usd), total(held_usd) FROM spend").fetchone()


def test_a_lock_on_the_keys_file_stops_nobody_else(ready: Ready, tmp_path: Path) -> None:
    """Who has a limit is refused after half a second; health and keys without one do not notice."""
    longest_s = 0.0
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "keys.sqlite"):
            counted = pool.submit(ask, ready.base_url, headers=HEADERS_OF, model="small")
            until_s = time.monotonic() + 1.5
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                assert call(ready.base_url.removesuffix("/v1"), "/healthz").status == 200
                assert ask(ready.base_url, headers=FREE, model="small").status == 200
                longest_s = max(longest_s, time.monotonic() - began_s)
        refused = counted.result()
    assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert longest_s < 1.0
    assert ask(ready.base_url, headers=HEADERS_OF, model="small").status == 200


def test_a_short_lock_is_waited_for(ready: Ready, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "keys.sqlite"):
            counted = pool.submit(ask, ready.base_url, headers=HEADERS_OF, model="small")
            time.sleep(0.2)
        assert counted.result().status == 200


def test_a_settlement_that_meets_a_lock_is_written_after_it(
    ready: Ready, upstream: Upstream, tmp_path: Path
) -> None:
    """The answer does not wait for it, what was held goes back, and the next request finds it so."""
    upstream.behave["small"] = "late"
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(ask, ready.base_url, headers=HEADERS_OF, model="small", max_tokens=1000)
            for _ in range(2)
        ]
        until_s = time.monotonic() + 5
        while len(upstream.seen) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        with locked(tmp_path / "keys.sqlite"):
            assert [answer.result().status for answer in answers] == [200, 200]
            before, held = spent(tmp_path / "keys.sqlite")
            assert before == 0.0
            assert held > 2 * SMALL_USD
            # Longer than SQLite itself would have waited.
            time.sleep(5.2)
    upstream.behave["small"] = "well"
    answers_after = ask(ready.base_url, headers=HEADERS_OF, model="small")
    assert answers_after.status == 200
    usd = sum(row(tmp_path / "l.sqlite", one.result().decision_id)["usd"] for one in answers)
    usd += row(tmp_path / "l.sqlite", answers_after.decision_id)["usd"]
    until_s = time.monotonic() + 5
    while spent(tmp_path / "keys.sqlite") != pytest.approx((usd, 0.0)) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert spent(tmp_path / "keys.sqlite") == pytest.approx((usd, 0.0))
    assert usd == pytest.approx(3 * SMALL_USD)


def test_what_waits_at_the_end_is_written_before_the_file_is_closed(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["small"] = "late"
    config = make(upstream, tmp_path, team=KeySettings(sha256=hashed(), budget_usd=1.0))
    with ThreadPoolExecutor(1) as pool:
        with running(config, deployment=make_deployment()) as ready:
            answer = pool.submit(ask, ready.base_url, headers=HEADERS_OF, model="small")
            until_s = time.monotonic() + 5
            while not upstream.seen and time.monotonic() < until_s:
                time.sleep(0.01)
            connection = sqlite3.connect(
                tmp_path / "keys.sqlite", isolation_level=None, check_same_thread=False
            )
            connection.execute("BEGIN IMMEDIATE")
            assert answer.result().status == 200

            def unlock() -> None:
                time.sleep(0.5)
                connection.execute("ROLLBACK")
                connection.close()

            later = pool.submit(unlock)
        later.result()
    assert spent(tmp_path / "keys.sqlite") == pytest.approx((SMALL_USD, 0.0))
