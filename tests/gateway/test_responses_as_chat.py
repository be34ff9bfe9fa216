"""OpenAI's client asks in Responses before upstreams that do not speak them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from pydantic import BaseModel

from tests.gateway.anthropic_upstream import (
    TEXT,
    THOUGHT,
    TOOL_USE,
    AnthropicUpstream,
    anthropic_server,
    message,
)
from tests.gateway.chat_told import CHUNKS, HEAD, SAID, USAGE, chunk, completion
from tests.gateway.client import Answer, call, row
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Told, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings, OpenAISettings

TOOL: Any = {"type": "function", "name": "multiply", "parameters": {"type": "object", "properties": {}}}
PICTURE = "data:image/png;base64,aGk="
CALL = {"type": "function_call", "call_id": "call_1", "name": "multiply", "arguments": '{"a": 17}'}


@pytest.fixture(scope="module")
def claude() -> Iterator[AnthropicUpstream]:
    with anthropic_server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def one_told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture
def told(one_told: Told) -> Told:
    one_told.seen.clear()
    one_told.say = lambda _: whole(completion(SAID, "tool_calls"))
    return one_told


@pytest.fixture(scope="module")
def stand(
    claude: AnthropicUpstream, one_told: Told, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A gateway whose `large` is Anthropic's and whose `small` speaks chat alone."""
    plain = make_config(one_told.base_url, Path(tmp_path_factory.mktemp("as_chat") / "ledger.sqlite"))
    config = msgspec.structs.replace(
        plain,
        providers={
            "main": OpenAISettings(base_url=one_told.base_url, apis=["chat"]),
            "claude": AnthropicSettings(base_url=claude.base_url),
        },
        default_provider="main",
        candidates={
            "large": CandidateSettings(provider="claude", model="claude", leave_out=["temperature"]),
        },
    )
    with running(config.check(), deployment=make_deployment()) as ready:
        yield Served(ready.base_url, Path(config.ledger.path))


@pytest.fixture
def client(stand: Served, claude: AnthropicUpstream) -> Iterator[openai.OpenAI]:
    claude.reset()
    with openai.OpenAI(base_url=stand.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def post(stand: Served, **fields: Any) -> Answer:
    body = json.dumps({"model": "small", "input": "What is 17 * 23?", **fields}).encode()
    return call(stand.base_url, "/responses", method="POST", body=body)


def test_a_conversation_is_written_as_chat(client: openai.OpenAI, told: Told) -> None:
    items: Any = [
        {"role": "developer", "content": "be exact"},
        {"role": "user", "content": [{"type": "input_text", "text": "look"},
                                     {"type": "input_image", "image_url": PICTURE, "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "somebody else's"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I multiply.", "annotations": []}]},
        CALL,
        {**CALL, "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_1", "output": "391"},
        {"type": "function_call_output", "call_id": "call_2",
         "output": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PICTURE}]},
        {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf", "file_data": PICTURE}]},
    ]  # fmt: skip
    form: Any = {"name": "answer", "schema": {"type": "object"}}
    file: Any = {"filename": "a.pdf", "file_data": PICTURE}
    asked: Any = client.responses.create
    asked(
        model="small",
        instructions="be kind",
        input=items,
        tools=[TOOL],
        tool_choice={"type": "function", "name": "multiply"},
        text={"format": {"type": "json_schema", **form, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=50,
        temperature=0.5,
        metadata={"a": "b"},
        store=True,
        extra_body={"mine": 1},
    )  # fmt: skip
    calls = [{"id": name, "type": "function", "function": {"name": "multiply", "arguments": '{"a": 17}'}}
             for name in ("call_1", "call_2")]  # fmt: skip
    image: Any = {"type": "image_url", "image_url": {"url": PICTURE}}
    assert told.last.json == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "system", "content": "be exact"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}]},
            {"role": "assistant", "content": "I multiply.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_1", "content": "391"},
            {"role": "tool", "tool_call_id": "call_2", "content": "see"},
            {"role": "user", "content": [image]},
            {"role": "user", "content": [{"type": "file", "file": file}]},
        ],
        "tools": [{"type": "function", "function": {"name": "multiply", "parameters": TOOL["parameters"]}}],
        "tool_choice": {"type": "function", "function": {"name": "multiply"}},
        "response_format": {"type": "json_schema", "json_schema": {**form, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "low",
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "mine": 1,
    }  # fmt: skip


def test_an_answer_comes_back_as_a_response(client: openai.OpenAI, stand: Served, told: Told) -> None:
    raw = client.responses.with_raw_response.create(
        model="small", input="x", tools=[TOOL], instructions="be kind"
    )
    got = raw.parse()
    assert [item.type for item in got.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (got.output_text, got.status, got.instructions) == ("It is 391.", "completed", "be kind")
    called: Any = got.output[2]
    assert (called.call_id, called.name, called.arguments) == ("call_1", "multiply", '{"a": 17}')
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.input_tokens_details.cached_tokens) == (150, 100)
    assert (got.usage.output_tokens, got.usage.output_tokens_details.reasoning_tokens) == (9, 4)
    found = row(stand.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (150, 9, 0)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI, told: Told, size: int) -> None:
    whole_answer = client.responses.create(model="small", input="x", tools=[TOOL])
    told.say = lambda _: stream(sse(*CHUNKS), size=size)
    with client.responses.stream(model="small", input="x", tools=[TOOL]) as events:
        seen = list(events)
        final = events.get_final_response()
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    streamed = [item.model_dump(exclude={"parsed_arguments"}) for item in final.output]
    for item in streamed:
        for part in item.get("content") or []:
            part.pop("parsed", None)
    assert streamed == [item.model_dump() for item in whole_answer.output]
    assert final.usage == whole_answer.usage
    assert "".join(e.delta for e in seen if e.type == "response.output_text.delta") == "It is 391."
    assert told.last.json["stream_options"] == {"include_usage": True}


class Joke(BaseModel):
    setup: str
    punchline: str


def test_a_form_is_parsed_before_anthropic(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    said = json.dumps({"setup": "a", "punchline": "b"})
    claude.told = message("claude", {"type": "text", "text": said})
    parsed = client.responses.parse(model="large", input="a joke", text_format=Joke, temperature=0.3)
    assert parsed.output_parsed == Joke(setup="a", punchline="b")
    sent = claude.seen[-1]
    assert sent["output_config"]["format"]["schema"]["required"] == ["setup", "punchline"]
    assert "temperature" not in sent, "the settings say that this candidate refuses it"


@pytest.mark.parametrize("is_stream", [False, True])
def test_signed_thoughts_go_round(client: openai.OpenAI, claude: AnthropicUpstream, is_stream: bool) -> None:
    """What a model signed comes back to it, through a client that only knows sealed reasoning."""
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    asked: Any = {"model": "large", "tools": [TOOL], "include": ["reasoning.encrypted_content"]}
    question: Any = {"role": "user", "content": "What is 17 * 23?"}
    if is_stream:
        with client.responses.stream(input=[question], **asked) as events:
            first: Any = events.get_final_response()
    else:
        first = client.responses.create(input=[question], **asked)
    assert first.output[0].summary[0].text == THOUGHT["thinking"]
    said: Any = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
    result: Any = {"type": "function_call_output", "call_id": "toolu_1", "output": "391"}
    client.responses.create(input=[question, *said, result], **asked)
    blocks = claude.seen[-1]["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[0] == THOUGHT
    client.responses.create(input=[question], **{**asked, "include": []})
    plain = client.responses.create(input=[question], model="large", tools=[TOOL])
    assert "encrypted_content" not in plain.output[0].model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[].content[].type"),
        ({"input": []}, "input"),
    ],
)  # fmt: skip
def test_what_chat_cannot_say_is_refused_by_name(
    stand: Served, told: Told, fields: dict[str, Any], param: str
) -> None:
    answer = post(stand, **fields)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "not_translatable", param)
    assert told.seen == []


def test_a_choice_among_tools_leaves_the_others_out(client: openai.OpenAI, told: Told) -> None:
    other: Any = {**TOOL, "name": "add"}
    choice: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    client.responses.create(model="small", input="x", tools=[TOOL, other], tool_choice=choice)
    sent = told.last.json
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["add"]
    assert sent["tool_choice"] == "required"


def test_an_answer_that_was_cut_short_says_so(client: openai.OpenAI, told: Told) -> None:
    said = {"role": "assistant", "content": "It is"}
    told.say = lambda _: whole(completion(said, "length"))
    got = client.responses.create(model="small", input="x")
    assert (got.status, got.incomplete_details and got.incomplete_details.reason) == (
        "incomplete", "max_output_tokens"
    )  # fmt: skip
    last = {**HEAD, "choices": [], "usage": USAGE}
    told.say = lambda _: stream(sse(chunk({"content": "It is"}), chunk({}, "length"), last))
    with client.responses.stream(model="small", input="x") as events:
        assert list(events)[-1].type == "response.incomplete"


def test_a_refusal_is_one(client: openai.OpenAI, told: Told) -> None:
    said = {"role": "assistant", "content": None, "refusal": "No."}
    told.say = lambda _: whole(completion(said, "stop"))
    got: Any = client.responses.create(model="small", input="x")
    assert got.output[0].content[0].refusal == "No."
    told.say = lambda _: stream(sse(chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk({}, "stop")))
    with client.responses.stream(model="small", input="x") as events:
        kinds = [event.type for event in events]
        final: Any = events.get_final_response()
    assert kinds.count("response.refusal.delta") == 2
    assert final.output[0].content[0].refusal == "No."


def test_a_stream_that_is_cut_ends_in_an_error(client: openai.OpenAI, stand: Served, told: Told) -> None:
    told.say = lambda _: stream(sse(*CHUNKS[:5], done=False), is_cut=True)
    answer = post(stand, stream=True)
    assert answer.body.rstrip().split(b"\n\n")[-1].startswith(b"event: error\n")
    assert b"response.completed" not in answer.body
    error = {"error": {"message": "overloaded", "code": 529}}
    told.say = lambda _: stream(sse(*CHUNKS[:2], error, done=False))
    events = client.responses.create(model="small", input="x", stream=True)
    with pytest.raises(openai.APIError, match="overloaded"), events:
        list(events)


def test_errors_and_garbage_of_the_upstream(client: openai.OpenAI, told: Told) -> None:
    told.say = lambda _: whole(
        {"error": {"message": "too long", "type": "x", "param": None, "code": "y"}}, 400
    )
    with pytest.raises(openai.BadRequestError, match="too long"):
        client.responses.create(model="small", input="x")
    told.say = lambda _: whole({"choices": []})
    with pytest.raises(openai.InternalServerError) as caught:
        client.responses.create(model="small", input="x")
    assert caught.value.code == "upstream_error"
