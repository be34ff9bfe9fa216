"""A sequencer's answer is streamed while its policy writes it, and half of one never ends as a whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.client import events_of
from tests.gateway.pool import make_deployment
from tests.gateway.scripted import scripted_server
from tests.gateway.stand import LARGE_USD, POLICY_USD, Stand, config_for
from turnout.gateway.lifecycle import running

THOUGHT = ["<think>I ", "know</th", "ink><ans", "wer> The ", "sum is ", "4"]
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    ledger = Path(tmp_path_factory.mktemp("stream")) / "ledger.sqlite"
    with (
        scripted_server() as server,
        running(config_for(server, ledger), deployment=make_deployment()) as ready,
    ):
        server.say["large"] = lambda body: "large says"
        yield Stand(ready.base_url, server, ledger)


def told_in_turn(*thoughts: list[str] | Iterator[str]) -> Any:
    """Say one thought after the other, by the number of assistant messages so far, in pieces."""

    def say(body: dict) -> Iterator[str]:
        return iter(thoughts[sum(message["role"] == "assistant" for message in body["messages"])])

    return say


def texts_of(body: bytes) -> list[str]:
    chunks = [json.loads(event) for event in events_of(body) if event != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return [choice["delta"].get("content", "") for choice in choices]


def test_the_client_reads_while_the_policy_still_writes(stand: Stand) -> None:
    has_read = threading.Event()

    def slowly() -> Iterator[str]:
        yield from THOUGHT
        # The rest is written only once the client has the beginning: without a live stream it never has.
        assert has_read.wait(10)
        yield " and no more"

    stand.server.say["policy"] = told_in_turn(["<search>large: how?"], slowly())
    text = ""
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0) as client:
        options: Any = {"include_usage": True}
        stream = client.chat.completions.create(
            model="turnout/r1", messages=MESSAGES, stream=True, stream_options=options
        )
        for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if text == "The sum is 4":
                has_read.set()
        assert chunk.usage is not None
    assert text == "The sum is 4 and no more"
    assert chunk.usage.prompt_tokens == 300
    assert has_read.is_set()


def test_what_streamed_is_charged_and_kept_like_any_other(stand: Stand) -> None:
    stand.server.say["policy"] = told_in_turn(["<search>large: how?"], THOUGHT)
    answer = stand.ask(stream=True)
    assert "".join(texts_of(answer.body)) == "The sum is 4"
    assert events_of(answer.body)[-1] == "[DONE]"
    assert answer.headers["x-turnout-calls"] == "1"
    assert answer.headers["x-turnout-model"] == "turnout/r1"
    assert "x-turnout-ended" not in answer.headers
    row = stand.row(answer)
    assert (row["status"], row["error"], row["usage_estimated"]) == (200, None, 0)
    assert row["usd"] == pytest.approx(2 * POLICY_USD + LARGE_USD)
    assert 0 < row["first_byte_s"] <= row["latency_s"]
    assert stand.trace(answer.decision_id)["ended"] == "stop"


def test_an_answer_that_is_taken_back_ends_in_an_error(stand: Stand) -> None:
    def broken() -> Iterator[str]:
        yield from THOUGHT
        # What arrives together is read together, and then nothing of a broken thought is told.
        time.sleep(0.3)
        yield " <search>large: really?"

    stand.server.say["policy"] = told_in_turn(broken(), ["<answer>", "it is five"])
    answer = stand.ask(stream=True)
    events = events_of(answer.body)
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "answer_withdrawn"
    row = stand.row(answer)
    assert (row["status"], row["error"]) == (502, "answer_withdrawn")
    assert row["usd"] == pytest.approx(2 * POLICY_USD)


def test_a_policy_that_is_cut_ends_the_stream_in_an_error(stand: Stand) -> None:
    def cut() -> Iterator[str]:
        yield from THOUGHT
        raise EOFError

    stand.server.say["policy"] = told_in_turn(cut())
    answer = stand.ask(stream=True)
    events = events_of(answer.body)
    assert "".join(texts_of(answer.body)) == "The sum is 4"
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "policy_failed"
    assert stand.row(answer)["error"] == "policy_failed"


def test_a_broken_thought_of_which_nothing_was_told_is_corrected(stand: Stand) -> None:
    stand.server.say["policy"] = told_in_turn(["<search>large: <answer>"], ["<answer>", "it is five"])
    answer = stand.ask(stream=True)
    assert "".join(texts_of(answer.body)) == "it is five"
    assert events_of(answer.body)[-1] == "[DONE]"
