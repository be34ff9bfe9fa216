"""An upstream that is down, slow, cut or angry: the next one is asked, or the client is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.client import ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import running

EASY: Any = [{"role": "user", "content": "an easy one"}]
WITH_NAME: Any = {"model": "small", "messages": EASY}


@pytest.mark.parametrize("how", ["500", "503", "429", "hangs up", "slow", "half a body"])
def test_a_fault_before_the_first_byte_falls_to_the_next_candidate(
    gateway: Served, upstream: Upstream, how: str
) -> None:
    upstream.behave["small"] = how
    answer = ask(gateway.base_url, messages=EASY)
    assert answer.status == 200
    # Equal quality everywhere, so the list goes on by cost: the adapter first, then the larger one.
    assert answer.headers["x-turnout-model"] == "small[adapter=legal]"
    assert answer.headers["x-turnout-chosen"] == "small"
    assert answer.headers["x-turnout-attempts"] == "2"
    found = row(gateway.ledger, answer.decision_id)
    assert (found["chosen"], found["served"], found["status"]) == ("small", "small[adapter=legal]", 200)
    assert found["faults"].startswith("small: upstream_")
    assert found["usd"] is None, "the one that served has no price card: unknown is not free"


def test_a_stream_falls_back_before_its_first_byte_too(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.behave |= {"small": "500", "small:legal": "slow"}
    with client.chat.completions.create(model="turnout/auto", messages=EASY, stream=True) as stream:
        models = {chunk.model for chunk in stream}
    assert models == {"large-0613"}


def test_a_200_that_is_no_answer_is_a_fault(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "garbage"
    answer = ask(gateway.base_url, WITH_NAME)
    assert answer.status == 502
    assert b"answered 200 without an answer" in answer.body
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"], found["usage_estimated"]) == (502, "upstream_error", 1)
    # It may have read the prompt: 3 tokens by their estimate.
    assert found["usd"] == pytest.approx(3 * 0.1 / 1e6)


def test_a_200_that_is_no_answer_falls_back(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.behave["small"] = "garbage"
    answer = client.chat.completions.create(model="turnout/auto", messages=EASY)
    assert answer.model != "small"
    assert answer.choices[0].message.content


def test_a_connection_that_is_not_accepted_is_a_504(tmp_path: Path) -> None:
    # A full queue of connections that nobody accepts: the next one gets no answer at all.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        config = make_config(f"http://127.0.0.1:{port}/v1", tmp_path / "l.sqlite", connect_s=0.2)
        with running(config, deployment=make_deployment()) as ready:
            answer = ask(ready.base_url, WITH_NAME)
        for each in waiting:
            each.close()
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert "did not accept a connection in time; allowed: 0.2 s" in answer.error["message"]


@pytest.mark.parametrize("how", ["empty", "error event"])
def test_a_stream_that_fails_before_it_begins_falls_back(
    gateway: Served, upstream: Upstream, how: str
) -> None:
    upstream.behave["small"] = how
    answer = ask(gateway.base_url, messages=EASY, stream=True)
    assert answer.headers["x-turnout-model"] == "small[adapter=legal]"
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert b"overloaded" not in answer.body


def test_a_client_is_told_not_to_try_again_what_was_tried(gateway: Served, upstream: Upstream) -> None:
    upstream.behave |= {"small": "500", "small:legal": "500", "large": "500"}
    assert ask(gateway.base_url, messages=EASY).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in ask(gateway.base_url, WITH_NAME).headers


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("500", 502, "upstream_error"),
        ("hangs up", 503, "upstream_unreachable"),
        ("slow", 504, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_named_candidate_has_no_stand_in(
    gateway: Served, upstream: Upstream, how: str, status: int, code: str, is_stream: bool
) -> None:
    upstream.behave["small"] = how
    started_s = time.monotonic()
    answer = ask(gateway.base_url, WITH_NAME, stream=is_stream)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert "'main'" in answer.error["message"]
    assert time.monotonic() - started_s < 5
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"], found["served"], found["attempts"]) == (status, code, None, 1)
    # Who had the request and gave no answer may have read the prompt; one that refused has not.
    usd, estimated = (None, 0) if how == "500" else (pytest.approx(3 * 0.1 / 1e6), 1)
    assert (found["usd"], found["input_tokens"], found["usage_estimated"]) == (usd, None, estimated)


def test_attempts_are_bounded(gateway: Served, upstream: Upstream) -> None:
    upstream.behave |= {"small": "500", "small:legal": "500", "large": "500"}
    answer = ask(gateway.base_url, messages=EASY)
    assert answer.status == 502
    assert len(upstream.seen) == 3, "max_attempts is 3, the pool has 4"
    faults = row(gateway.ledger, answer.decision_id)["faults"]
    assert faults == "small: upstream_error; small[adapter=legal]: upstream_error; large: upstream_error"


def test_a_rate_limit_that_remains_is_told_without_the_words_about_our_account(
    gateway: Served, upstream: Upstream
) -> None:
    upstream.behave["small"] = "429"
    answer = ask(gateway.base_url, WITH_NAME)
    assert (answer.status, answer.error["code"]) == (429, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert b"told to say" not in answer.body
    assert row(gateway.ledger, answer.decision_id)["error"] == "upstream_rate_limited"


@pytest.mark.parametrize("how", ["429", "answers"])
def test_headers_that_name_the_account_are_not_passed_on(
    gateway: Served, upstream: Upstream, how: str
) -> None:
    upstream.behave["small"] = "429" if how == "429" else "well"
    answer = ask(gateway.base_url, WITH_NAME)
    assert answer.status == (429 if how == "429" else 200)
    assert "openai-version" in answer.headers
    assert "openai-organization" not in answer.headers


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_client_error_of_the_upstream_is_passed_on_and_nobody_else_is_asked(
    gateway: Served, upstream: Upstream, status: int
) -> None:
    upstream.behave["small"] = str(status)
    answer = ask(gateway.base_url, messages=EASY)
    assert (answer.status, answer.error["message"]) == (status, f"told to say {status}")
    assert len(upstream.seen) == 1
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"]) == (status, f"upstream_{status}")


@pytest.mark.parametrize("how", ["cut", "ends early"])
def test_a_cut_stream_ends_in_an_error_and_never_in_done(
    gateway: Served, upstream: Upstream, how: str
) -> None:
    upstream.behave["small"] = how
    answer = ask(gateway.base_url, WITH_NAME, stream=True)
    assert answer.status == 200
    events = events_of(answer.body)
    assert [event.encode() for event in events[:-1]] == [sent[6:-2] for sent in upstream.sent]
    assert "[DONE]" not in events
    assert '"code":"upstream_cut"' in events[-1]
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"], found["served"]) == (502, "upstream_cut", "small")
    assert (found["usage_estimated"], found["output_tokens"]) == (1, 3)
    assert found["usd"] > 0, "what was received was paid for"


def test_an_upstream_that_hangs_up_after_the_end_did_no_harm(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "hangs up after done"
    answer = ask(gateway.base_url, WITH_NAME, stream=True)
    assert events_of(answer.body)[-1] == "[DONE]"
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"], found["usage_estimated"]) == (200, None, 0)


def test_a_stream_that_falls_silent_is_cut(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "drips"
    answer = ask(gateway.base_url, WITH_NAME, stream=True)
    assert '"code":"upstream_cut"' in events_of(answer.body)[-1]
    assert upstream.last.gone.wait(2), "the silent connection is closed"


def test_the_official_client_raises_on_a_cut_stream(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.behave["small"] = "cut"
    with (
        pytest.raises(openai.APIError, match="stopped in the middle"),
        client.chat.completions.create(stream=True, **WITH_NAME) as stream,
    ):
        list(stream)


def test_an_upstream_that_is_down_is_a_503_that_names_it(upstream: Upstream, tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        config = make_config(f"http://127.0.0.1:{port}/v1", tmp_path / "ledger.sqlite")
        with running(config, deployment=make_deployment()) as ready:
            answer = ask(ready.base_url, messages=EASY)
    assert (answer.status, answer.error["code"]) == (503, "upstream_unreachable")
    found = row(tmp_path / "ledger.sqlite", answer.decision_id)
    assert (found["attempts"], found["status"]) == (2, 503)


def test_a_connection_that_the_upstream_closes_meanwhile_is_opened_again(tmp_path: Path) -> None:
    """A server that closes a kept connection as the next request comes in: no request must fail for it."""
    ledger = tmp_path / "ledger.sqlite"
    with (
        upstream_that_closes() as base_url,
        running(make_config(base_url, ledger), deployment=make_deployment()) as ready,
    ):
        assert [ask(ready.base_url, WITH_NAME).status for _ in range(4)] == [200] * 4


@contextmanager
def upstream_that_closes() -> Iterator[str]:
    """Answer the first request of every connection, and close it when the second one arrives."""
    listener = socket.create_server(("127.0.0.1", 0))
    body = b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    head = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-type: application/json\r\n"

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(65536)
                while data and b"}]}" not in data:
                    data += connection.recv(65536)
                connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
                connection.recv(65536)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_an_event_that_is_no_json_marks_the_row(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "bad event"
    answer = ask(gateway.base_url, model="small", stream=True)
    assert b"data: {not json}\n\n" in answer.body
    kept = row(gateway.ledger, answer.decision_id)
    assert (kept["status"], kept["faults"]) == (200, "main: upstream_bad_event")
