"""A stream that is silent gets comments, from before its first event, and says the same as without them."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from tests.gateway.client import ask, call, row
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_disconnect import open_request
from tests.gateway.upstream import NUM_EVENTS, Upstream
from turnout.gateway.lifecycle import running

ASK: Any = [{"role": "user", "content": "x"}]
TEXT = "".join(f"w{number} " for number in range(NUM_EVENTS))
PING = b": ping\n\n"


@pytest.fixture(scope="module")
def stand(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("keepalive") / "ledger.sqlite"
    plain = make_config(one_upstream.base_url, Path(ledger), first_byte_s=5.0)
    config = msgspec.structs.replace(plain, server=msgspec.structs.replace(plain.server, keep_alive_s=0.05))
    with running(config, deployment=make_deployment()) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, upstream: Upstream) -> Served:
    return stand


def release_later(upstream: Upstream, after_s: float = 0.3) -> None:
    threading.Timer(after_s, upstream.release.set).start()


def test_before_the_first_event(served: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "slow"
    release_later(upstream)
    answer = ask(served.base_url, model="small", stream=True)
    assert answer.body.startswith(PING * 3)
    assert answer.body.replace(PING, b"") == b"".join(upstream.sent).replace(
        next(event for event in upstream.sent if b'"choices": []' in event), b""
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = row(served.ledger, answer.decision_id)
    assert (found["status"], found["served"], found["output_tokens"]) == (200, "small", NUM_EVENTS)
    assert found["first_byte_s"] > 0.25, "a comment is no answer"


def test_between_events_and_never_within_one(served: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "drips"
    upstream.release.clear()
    release_later(upstream)
    body = ask(served.base_url, model="small", stream=True).body
    assert body.count(PING) >= 3
    assert all(part.startswith((b"data: ", b": ping")) for part in body.split(b"\n\n")[:-1])


def test_clients_do_not_notice(served: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "slow"
    release_later(upstream)
    with (
        openai.OpenAI(base_url=served.base_url, api_key="x", max_retries=0) as client,
        client.chat.completions.create(model="small", messages=ASK, stream=True) as stream,
    ):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXT
    upstream.release.clear()
    release_later(upstream)
    root = served.base_url.removesuffix("/v1")
    with (
        anthropic.Anthropic(base_url=root, api_key="x", max_retries=0) as other,
        other.messages.stream(model="small", max_tokens=99, messages=ASK) as told,
    ):
        kinds = [event.type for event in told]
    assert kinds[0] == "message_start" or "ping" in kinds[:1]


def test_a_quick_stream_and_a_whole_answer_get_none(served: Served, upstream: Upstream) -> None:
    assert PING not in ask(served.base_url, model="small", stream=True).body
    upstream.behave["small"] = "late"
    answer = ask(served.base_url, model="small")
    assert json.loads(answer.body)["choices"]


def test_a_failure_after_the_first_comment_is_an_error_event(served: Served, upstream: Upstream) -> None:
    upstream.script["small"] = ["late 503"]
    answer = ask(served.base_url, model="small", stream=True)
    assert answer.status == 200
    last = answer.body.split(b"\n\n")[-2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_error"
    assert b"data: [DONE]" not in answer.body
    assert row(served.ledger, answer.decision_id)["status"] == 502
    upstream.script["small"] = ["late 400"]
    answer = ask(served.base_url, model="small", stream=True)
    assert b"told to say 400" in answer.body.split(b"\n\n")[-2]
    assert row(served.ledger, answer.decision_id)["status"] == 400


def test_the_next_candidate_may_still_answer(served: Served, upstream: Upstream) -> None:
    upstream.script["large"] = ["late 503"]
    answer = ask(served.base_url, stream=True)
    assert answer.body.startswith(PING)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert row(served.ledger, answer.decision_id)["served"] == "small"


def test_messages_have_a_ping_of_their_own(served: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "slow"
    release_later(upstream)
    body = {"model": "small", "max_tokens": 9, "messages": ASK, "stream": True}
    answer = call(served.base_url, "/messages", method="POST", body=json.dumps(body).encode())
    assert answer.body.startswith(b'event: ping\ndata: {"type": "ping"}\n\n')


def test_a_client_that_leaves_is_noticed_upstream_at_once(served: Served, upstream: Upstream) -> None:
    took_s = []
    for number in range(7):
        upstream.behave["small"] = "slow"
        connection = open_request(
            served.base_url, {"model": "small", "messages": ASK, "stream": number % 2 == 0}
        )
        while len(upstream.seen) <= number:
            time.sleep(0.002)
        left_s = time.monotonic()
        connection.close()
        assert upstream.seen[number].gone.wait(2)
        took_s.append(time.monotonic() - left_s)
    assert statistics.median(took_s) < 0.1
