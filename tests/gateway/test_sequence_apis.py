"""A sequencer answers in whichever API it is asked, whole and while its policy writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway.client import call, check_advice
from tests.gateway.scripted import script
from tests.gateway.stand import LARGE_USD, POLICY_USD, Stand, standing
from tests.gateway.test_sequence_stream import THOUGHT, told_in_turn

MESSAGES: Any = [{"role": "user", "content": "hello"}]
SAID = "it is four, and nothing else " * 4


@pytest.fixture(scope="module")
def one_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("apis") / "ledger.sqlite") as one:
        yield one


@pytest.fixture
def stand(one_stand: Stand) -> Stand:
    one_stand.server.seen.clear()
    one_stand.server.say = {
        "policy": script("<search>large: how?", f"<answer>{SAID}"),
        "large": lambda body: "large says",
    }
    return one_stand


def post(stand: Stand, path: str, **fields: Any) -> Any:
    body = json.dumps({"model": "turnout/r1", **fields}).encode()
    return call(stand.base_url, path, method="POST", body=body)


def test_anthropics_client_reads_a_message(stand: Stand) -> None:
    root = stand.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=root, api_key="none", max_retries=0) as client:
        whole = client.messages.create(
            model="turnout/r1", max_tokens=100, system="be kind", messages=MESSAGES
        )
        (block,) = whole.content
        assert block.type == "text"
        assert (block.text.strip(), whole.stop_reason) == (SAID.strip(), "end_turn")
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (300, 30)
        with client.messages.stream(model="turnout/r1", max_tokens=100, messages=MESSAGES) as stream:
            texts = list(stream.text_stream)
            last = stream.get_final_message()
    assert "".join(texts).strip() == SAID.strip()
    assert len(texts) > 2
    assert (last.usage.output_tokens, last.stop_reason) == (30, "end_turn")


def test_openais_client_reads_a_response(stand: Stand) -> None:
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0) as client:
        whole = client.responses.create(model="turnout/r1", input="hello", store=False)
        assert whole.output_text.strip() == SAID.strip()
        assert whole.usage is not None
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (300, 30)
        with client.responses.stream(model="turnout/r1", input="hello", store=False) as stream:
            texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
            last = stream.get_final_response()
    assert "".join(texts).strip() == last.output_text.strip() == SAID.strip()
    assert len(texts) > 2
    assert last.status == "completed"


def test_it_is_charged_once_and_its_row_says_who(stand: Stand) -> None:
    answer = post(stand, "/messages", messages=MESSAGES, max_tokens=10)
    kept = stand.row(answer)
    assert kept["usd"] == pytest.approx(2 * POLICY_USD + LARGE_USD)
    assert (kept["served"], kept["attempts"]) == ("turnout/r1", 3)
    assert float(answer.headers["x-turnout-usd"]) == pytest.approx(kept["usd"])


@pytest.mark.parametrize("path", ["/messages", "/responses"])
def test_a_policy_that_is_cut_ends_the_stream_in_an_error_of_the_api(stand: Stand, path: str) -> None:
    def cut() -> Iterator[str]:
        yield from THOUGHT
        raise EOFError

    stand.server.say["policy"] = told_in_turn(cut())
    fields = {"messages": MESSAGES, "max_tokens": 9} if path == "/messages" else {"input": "hello"}
    answer = post(stand, path, stream=True, **fields)
    last = answer.body.strip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error\n")
    assert b"message_stop" not in answer.body
    assert b"response.completed" not in answer.body
    assert stand.row(answer)["error"] == "policy_failed"


@pytest.mark.parametrize("path", ["/messages", "/responses"])
def test_what_several_calls_cannot_keep_is_refused_in_the_words_of_the_api(stand: Stand, path: str) -> None:
    fields: dict[str, Any] = {"input": "hello", "tools": [{"type": "function", "name": "f"}]}
    if path == "/messages":
        fields = {"messages": MESSAGES, "max_tokens": 9, "tools": [{"name": "f", "input_schema": {}}]}
    answer = post(stand, path, **fields)
    assert answer.status == 400
    error = answer.json["error"]
    assert error["code"] == "not_supported"
    check_advice(error["message"])
    assert stand.server.seen == []


def test_vectors_are_no_answer(stand: Stand) -> None:
    answer = post(stand, "/embeddings", input="hello")
    assert (answer.status, answer.error["code"]) == (400, "not_supported")
