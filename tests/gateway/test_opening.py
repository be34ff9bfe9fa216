"""A stream that fails before the first word of its answer was no answer: the next candidate is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import Answer, call, row
from tests.gateway.conftest import Served
from tests.gateway.converse_told import frame
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, Told, sse, told_server
from turnout.gateway.lifecycle import running
from turnout.gateway.providers.bedrock import BedrockDialect
from turnout.gateway.providers.opening import MOST_BYTES, read_opening
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings, BedrockSettings
from turnout.gateway.stream import MAX_HELD_BYTES

EVENTS = "text/event-stream"
ERROR = {"error": {"message": "overloaded", "code": 502}}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


ROLE = sse(chunk(role="assistant", content=""), done=False)
FAILED = sse(ERROR, done=False)
GOOD = b": warm\n\n" + ROLE + sse(chunk(content="well"), chunk("stop"))
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
STARTED = b"event: message_start\n" + sse({"type": "message_start", "message": MESSAGE}, done=False)


class Stand:
    """A gateway whose `small`, which is asked first, does as a test says, and whose `large` is well."""

    def __init__(self, served: Served, told: Told) -> None:
        self.served, self.told = served, told

    def ask(self, small: Say, path: str = "/chat/completions", **fields: Any) -> Answer:
        def say(asked: Asked) -> Say:
            return small if asked.json["model"] == "small" else Say([GOOD[:20], GOOD[20:]], kind=EVENTS)

        self.told.say = say
        said = [{"role": "user", "content": "an easy one"}]
        body = {"model": "turnout/auto", "messages": said, "stream": True, "max_tokens": 9, **fields}
        return call(self.served.base_url, path, method="POST", body=json.dumps(body).encode())


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    ledger = Path(tmp_path_factory.mktemp("opening") / "ledger.sqlite")
    with told_server() as told:
        config = make_config(told.base_url, ledger, first_byte_s=0.4, idle_s=5.0)
        with running(config, deployment=make_deployment()) as ready:
            yield Stand(Served(ready.base_url, ledger), told)


def events(*blocks: bytes, **more: Any) -> Say:
    return Say([*blocks, b""], kind=EVENTS, **more)


FAILING = {
    "after a comment": events(b": PROCESSING\n\n", FAILED),
    "in two reads": events(FAILED[:11], FAILED[11:]),
    "by its name": events(b"event: error\n" + FAILED),
    "by its name alone": events(b"event: error\ndata: overloaded\n\n"),
    "after a role": events(ROLE, FAILED),
    "after the filter of a prompt": events(
        sse({"choices": [], "prompt_filter_results": []}, done=False), FAILED
    ),
    "in a choice": events(ROLE, sse({**chunk("error", content=""), **ERROR}, done=False)),
    "cut": events(ROLE, is_cut=True),
    "ended": events(b": PROCESSING\n\n", ROLE),
}


@pytest.mark.parametrize("how", FAILING)
def test_an_error_before_the_first_word_falls_back(stand: Stand, how: str) -> None:
    answer = stand.ask(FAILING[how])
    assert answer.status == 200
    assert answer.headers["x-turnout-model"] == "large"
    assert answer.body == GOOD
    found = row(stand.served.ledger, answer.decision_id)
    assert (found["served"], found["status"], found["attempts"]) == ("large", 200, 2)


def test_a_named_candidate_says_what_went_wrong(stand: Stand) -> None:
    answer = stand.ask(events(b": PROCESSING\n\n", ROLE, FAILED), model="small")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert "overloaded" in answer.error["message"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_good_stream_keeps_its_bytes(stand: Stand, size: int) -> None:
    answer = stand.ask(events(*(GOOD[at : at + size] for at in range(0, len(GOOD), size)), wait_s=0))
    assert (answer.headers["x-turnout-model"], answer.body) == ("small", GOOD)


def test_an_error_after_the_first_word_is_passed_on(stand: Stand) -> None:
    sent = ROLE + sse(chunk(content="on"), done=False) + FAILED
    answer = stand.ask(events(ROLE, sent[len(ROLE) :]))
    assert (answer.headers["x-turnout-model"], answer.body) == ("small", sent)


def test_whoever_is_silent_for_long_is_passed_on_as_it_is(stand: Stand) -> None:
    # Comments for longer than `first_byte_s`: somebody thinks, and must not be replaced for it.
    answer = stand.ask(events(b": THINKING\n\n", ROLE, GOOD, wait_s=0.3))
    assert (answer.headers["x-turnout-model"], answer.body) == ("small", b": THINKING\n\n" + ROLE + GOOD)


def test_a_deadline_passes_on_what_there_is(stand: Stand, tmp_path: Path) -> None:
    config = make_config(stand.told.base_url, tmp_path / "l.sqlite", first_byte_s=9.0)
    config = msgspec.structs.replace(config, routing=msgspec.structs.replace(config.routing, deadline_s=0.3))
    with running(config, deployment=make_deployment()) as ready:
        other = Stand(Served(ready.base_url, tmp_path / "l.sqlite"), stand.told)
        answer = other.ask(events(ROLE, GOOD, wait_s=0.5))
    assert (answer.status, answer.body) == (200, ROLE + GOOD)


def test_messages_fall_back_after_their_start(stand: Stand, tmp_path: Path) -> None:
    plain = make_config(stand.told.base_url, tmp_path / "l.sqlite")
    config = msgspec.structs.replace(
        plain,
        default_provider="main",
        providers={**plain.providers, "ant": AnthropicSettings(base_url=stand.told.base_url)},
        candidates={"small": CandidateSettings(provider="ant"), "large": CandidateSettings(provider="main")},
    )
    with running(config, deployment=make_deployment()) as ready:
        other = Stand(Served(ready.base_url, tmp_path / "l.sqlite"), stand.told)
        failed = b"event: error\n" + sse(
            {"type": "error", "error": {"type": "x", "message": "y"}}, done=False
        )
        for path in ("/messages", "/chat/completions"):
            answer = other.ask(events(STARTED, failed), path)
            assert (answer.status, answer.headers["x-turnout-model"]) == (200, "large")


@pytest.mark.parametrize(
    ("held", "look"),
    [
        (b"", "silent"),
        (b'data: {"choices"', "silent"),
        (STARTED, "silent"),
        (sse({"type": "content_block_delta", "delta": {}}, done=False), "begun"),
        (sse({"type": "response.created", "response": {"error": None}}, done=False), "silent"),
        (sse({"type": "response.output_text.delta", "delta": "a"}, done=False), "begun"),
        (sse({"type": "response.failed", "response": {}}, done=False), "failed"),
        (sse({"type": "error", "message": "x"}, done=False), "failed"),
        (sse({"candidates": [{"content": {}}]}, done=False), "begun"),
        (sse(chunk(role="assistant", content="event: error\n")), "begun"),
        (sse(chunk(role="assistant", tool_calls=[{"index": 0}])), "begun"),
        (sse(chunk("stop", role="assistant")), "begun"),
        (b"data: [DONE]\n\n", "failed"),
        (b"data: not json\n\n", "failed"),
        (b"data: [1]\n\n", "failed"),
        (sse({"object": "error", "message": "x", "code": 500}), "failed"),
        (sse(chunk("error")), "failed"),
        (b"a" * (MOST_BYTES + 1), "begun"),
    ],
)
def test_what_an_opening_says(held: bytes, look: str) -> None:
    assert read_opening(held).look == look


def test_an_opening_of_bedrock_is_read_too() -> None:
    dialect = BedrockDialect(
        settings=BedrockSettings(base_url="http://x", region="r"), api_key="k", keys=None
    )
    start = frame("messageStart", {"role": "assistant"})
    failed = frame("throttlingException", {"message": "slow down"}, message="exception")
    assert dialect.opening(start + failed[:20]).look == "silent"
    assert dialect.opening(start + failed).look == "failed"
    assert b"slow down" in dialect.opening(start + failed).error
    assert dialect.opening(start + frame("contentBlockDelta", {})).look == "begun"
    assert dialect.opening(b"\0" * 40).look == "begun"


@pytest.mark.parametrize("path", ["/chat/completions", "/messages"])
def test_an_error_after_a_torn_event_is_an_event_of_its_own(stand: Stand, tmp_path: Path, path: str) -> None:
    # One event of more than the gateway holds back, cut in its middle.
    begin = b'data: {"choices": [{"index": 0, "delta": {"content": "' + b"x" * (MAX_HELD_BYTES + 99)
    if path == "/messages":
        begin = (
            STARTED + b'event: content_block_delta\ndata: {"type": "content_block_delta", "x": "' + begin[50:]
        )
    config = make_config(stand.told.base_url, tmp_path / "l.sqlite")
    if path == "/messages":
        ant = {"main": AnthropicSettings(base_url=stand.told.base_url)}
        config = msgspec.structs.replace(config, providers=ant)
    with running(config, deployment=make_deployment()) as ready:
        other = Stand(Served(ready.base_url, tmp_path / "l.sqlite"), stand.told)
        answer = other.ask(events(begin, is_cut=True), path, model="small")
    last = [event for event in answer.body.split(b"\n\n") if event][-1]
    assert b"upstream_cut" in last
    assert last.startswith((b'data: {"error"', b"event: error\n"))
