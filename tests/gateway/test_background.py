"""Responses in the background: what they cost is known when they have ended, and nothing costs nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from tests.gateway.client import row, rows
from tests.gateway.pool import SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, SECRET, hashed
from tests.gateway.told import Asked, Say, Told, sse, told_server, whole
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.settings_keys import AuthSettings, KeySettings

BUDGET_USD, MOST_TOKENS = 0.05, 50_000
ASKED: Any = {"model": "small", "input": "hi", "background": True, "max_output_tokens": MOST_TOKENS}
REPORTED = {"input_tokens": 1000, "output_tokens": 40_000, "total_tokens": 41_000}
COST_USD = (1000 * 0.1 + 40_000 * 0.4) / 1e6


def response(status: str, **more: object) -> dict[str, Any]:
    told = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": []}
    return {**told, "status": status, "background": True, "usage": None, **more}


class Upstream:
    """Keeps one response; `end` is what it is when it has ended, None while it is not."""

    def __init__(self) -> None:
        self.end: dict[str, Any] | None = None
        self.streams = False

    def say(self, asked: Asked) -> Say:
        if asked.method == "GET":
            return whole(self.end or response("in_progress"))
        if self.streams:
            begun = {"type": "response.created", "response": response("in_progress")}
            text = {"type": "response.output_text.delta", "delta": "a"}
            blocks = [sse(begun, text, done=False), *[b": wait\n\n"] * 50]
            return Say(blocks, kind="text/event-stream", wait_s=0.1)
        return whole(response("queued"))


@pytest.fixture
def told() -> Iterator[Told]:
    with told_server() as told:
        yield told


@contextmanager
def serving(told: Told, folder: Path) -> Iterator[Ready]:
    config = msgspec.structs.replace(
        make_config(told.base_url, folder / "l.sqlite"),
        keys={"team": KeySettings(sha256=hashed(), budget_usd=BUDGET_USD, budget_period="total")},
        auth=AuthSettings(path=str(folder / "keys.sqlite")),
    )
    with running(config, deployment=make_deployment((SMALL,))) as ready:
        yield ready


def spend(folder: Path) -> tuple[float, float]:
    """Return what the budget has counted, and what it holds."""
    with closing(sqlite3.connect(folder / "keys.sqlite")) as connection:
        return connection.execute("SELECT sum(spent_usd), sum(held_usd) FROM spend").fetchone()


def client_of(ready: Ready) -> openai.OpenAI:
    return openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0, timeout=10)


def test_it_is_charged_by_what_it_tells_at_its_end_and_held_until_then(told: Told, tmp_path: Path) -> None:
    upstream = Upstream()
    told.say = upstream.say
    with serving(told, tmp_path) as ready, client_of(ready) as client:
        for _ in range(2):
            assert client.responses.create(**ASKED).status == "queued"
        with pytest.raises(openai.RateLimitError, match="held by running requests"):
            client.responses.create(**ASKED)
        spent_usd, held_usd = spend(tmp_path)
        assert spent_usd == 0.0
        assert held_usd == pytest.approx(2 * MOST_TOKENS * 0.4 / 1e6, rel=0.01)
        _wait(lambda: len(rows(tmp_path / "l.sqlite")) == 3)
        assert [found["status"] for found in rows(tmp_path / "l.sqlite")[:2]] == [None, None]
        upstream.end = response("completed", usage=REPORTED)
        _wait(lambda: spend(tmp_path)[1] < 1e-9)
    assert spend(tmp_path)[0] == pytest.approx(2 * COST_USD)
    for found in rows(tmp_path / "l.sqlite")[:2]:
        assert (found["status"], found["usd"]) == (200, pytest.approx(COST_USD))
        assert (found["output_tokens"], found["usage_estimated"]) == (40_000, 0)


def test_where_its_end_is_not_seen_the_most_is_charged(told: Told, tmp_path: Path) -> None:
    told.say = Upstream().say
    with serving(told, tmp_path) as ready, client_of(ready) as client:
        client.responses.create(**ASKED)
    # The gateway has stopped while the upstream went on.
    (found,) = rows(tmp_path / "l.sqlite")
    assert (found["output_tokens"], found["usage_estimated"]) == (MOST_TOKENS, 1)
    assert found["usd"] == pytest.approx(MOST_TOKENS * 0.4 / 1e6, rel=0.01)
    spent_usd, held_usd = spend(tmp_path)
    assert (spent_usd - found["usd"], held_usd) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("end", "error", "usd"),
    [
        (response("failed", error={"code": "server_error", "message": "x"}), "upstream_error_event", 1e-7),
        (response("cancelled"), None, MOST_TOKENS * 0.4 / 1e6),
    ],
)
def test_one_that_tells_no_usage_is_charged_by_how_it_ended(
    told: Told, tmp_path: Path, end: dict[str, Any], error: str | None, usd: float
) -> None:
    upstream = Upstream()
    upstream.end = end
    told.say = upstream.say
    with serving(told, tmp_path) as ready, client_of(ready) as client:
        client.responses.create(**ASKED)
        _wait(lambda: [found for found in rows(tmp_path / "l.sqlite") if found["status"] is not None])
    (found,) = rows(tmp_path / "l.sqlite")
    assert (found["error"], found["usage_estimated"]) == (error, 1)
    assert found["usd"] == pytest.approx(usd, rel=0.01)


def test_who_leaves_a_stream_of_it_is_charged_for_what_goes_on(told: Told, tmp_path: Path) -> None:
    upstream = Upstream()
    upstream.streams = True
    told.say = upstream.say
    with serving(told, tmp_path) as ready:
        with (
            httpx.Client(base_url=ready.base_url, headers=HEADERS_OF) as client,
            client.stream("POST", "/responses", json={**ASKED, "stream": True}) as answer,
        ):
            decision_id = answer.headers["x-turnout-decision-id"]
            next(answer.iter_bytes())
        time.sleep(0.3)
        assert spend(tmp_path)[1] > 0.01
        upstream.end = response("completed", usage=REPORTED)
        found = row(tmp_path / "l.sqlite", decision_id)
    assert (found["status"], found["error"]) == (499, "client_left")
    assert (found["usd"], found["usage_estimated"]) == (pytest.approx(COST_USD), 0)


def _wait(is_so: Any) -> None:
    until_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.02)
