"""OpenAI's client speaks Responses through a gateway before upstreams that know other APIs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pydantic
import pytest

from tests.gateway.anthropic_upstream import (
    TEXT,
    THOUGHT,
    TOOL_USE,
    AnthropicUpstream,
    anthropic_server,
    message,
)
from tests.gateway.chat_told import CALLS, CHUNKS, SAID, completion
from tests.gateway.client import Answer, call, row
from tests.gateway.conftest import Served
from tests.gateway.gemini_told import CALL, stream_of
from tests.gateway.gemini_told import CHUNKS as GEMINI_CHUNKS
from tests.gateway.gemini_told import answer as gemini_answer
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Told, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import AnthropicSettings, GeminiSettings, OpenAISettings

SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}
TOOL: Any = {
    "type": "function",
    "name": "multiply",
    "description": "d",
    "parameters": SCHEMA,
    "strict": False,
}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"}
PDF = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}
HISTORY: Any = [
    {"role": "developer", "content": "be kind"},
    {"role": "user", "content": [{"type": "input_text", "text": "look"}, IMAGE, PDF]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I see.", "annotations": []}],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "multiply",
        "arguments": '{"a": 17}',
    },
    {"type": "function_call", "call_id": "call_2", "name": "multiply", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": [{"type": "input_text", "text": "391"}, IMAGE],
    },
    {"type": "function_call_output", "call_id": "call_2", "output": "0"},
    {"role": "user", "content": "go on"},
]


@pytest.fixture(scope="module")
def claude() -> Iterator[AnthropicUpstream]:
    with anthropic_server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture(scope="module")
def stand(
    claude: AnthropicUpstream, told: Told, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A gateway whose `small` speaks chat, `large` Messages, `gemini` Gemini, and `whole` Responses, too."""
    ledger = tmp_path_factory.mktemp("over_chat") / "ledger.sqlite"
    config = msgspec.structs.replace(
        make_config("http://x", Path(ledger)),
        providers={
            "chat": OpenAISettings(base_url=told.base_url, apis=["chat"]),
            "claude": AnthropicSettings(base_url=claude.base_url),
            "google": GeminiSettings(base_url=told.base_url.replace("/v1", "/v1beta")),
            "whole": OpenAISettings(base_url=told.base_url),
        },
        default_provider="chat",
        candidates={"large": CandidateSettings(provider="claude", model="claude")},
        models={"gemini": ModelSettings(provider="google"), "whole": ModelSettings(provider="whole")},
    ).check()
    with running(config, deployment=make_deployment((SMALL, LARGE))) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, told: Told, claude: AnthropicUpstream) -> Served:
    told.seen.clear()
    claude.reset()
    said = {"role": "assistant", "content": "It is 391."}
    told.say = lambda asked: (
        stream(sse(*CHUNKS), size=40) if asked.json.get("stream") else whole(completion(said, "stop"))
    )
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def post(served: Served, **fields: Any) -> Answer:
    body = {"model": "small", "input": "What is 17 * 23?", **fields}
    return call(served.base_url, "/responses", method="POST", body=json.dumps(body).encode())


def test_the_client_gets_its_answer_from_who_speaks_chat(
    client: openai.OpenAI, served: Served, told: Told
) -> None:
    got = client.responses.create(model="turnout/auto", input="an easy one", instructions="be brief")
    assert (got.output_text, got.model, got.status) == ("It is 391.", "gpt-x", "completed")
    assert (got.instructions, got.to_dict()["store"]) == ("be brief", False)
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.total_tokens) == (150, 9, 159)
    asked = told.last
    assert asked.path == "/v1/chat/completions"
    assert asked.json == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "an easy one"},
        ],
        "model": "small",
    }
    answer = post(served)
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    assert (found["usage_estimated"], found["served"]) == (0, "small")


def test_the_turns_that_an_upstream_of_chat_is_told(served: Served, told: Told) -> None:
    post(served, input=HISTORY, instructions="be brief")
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 17}'}},
        {"id": "call_2", "type": "function", "function": {"name": "multiply", "arguments": "{}"}},
    ]
    image = {"type": "image_url", "image_url": {"url": IMAGE["image_url"], "detail": "low"}}
    file = {"filename": "a.pdf", "file_data": PDF["file_data"]}
    assert told.last.json["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, image, {"type": "file", "file": file}],
        },
        {"role": "assistant", "content": "I see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "391"},
        {"role": "tool", "tool_call_id": "call_2", "content": "0"},
        {"role": "user", "content": [image]},
        {"role": "user", "content": "go on"},
    ]


def test_what_an_upstream_of_chat_is_asked(served: Served, told: Told) -> None:
    custom = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    post(
        served,
        tools=[TOOL, {"type": "custom", "name": "run", "format": custom}],
        tool_choice={"type": "function", "name": "multiply"},
        parallel_tool_calls=False,
        max_output_tokens=99,
        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
        reasoning={"effort": "low", "summary": "auto"},
        top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        safety_identifier="u1",
        store=True,
        metadata={"a": "b"},
        truncation="auto",
        prompt_cache_key="k",
        service_tier="auto",
        stream_options={"include_obfuscation": False},
        background=False,
        temperature=0.5,
        vendor={"x": 1},
    )
    function = {name: value for name, value in TOOL.items() if name != "type"}
    assert told.last.json == {
        "model": "small",
        "messages": [{"role": "user", "content": "What is 17 * 23?"}],
        "tools": [
            {"type": "function", "function": function},
            {
                "type": "custom",
                "custom": {
                    "name": "run",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}},
                },
            },
        ],
        "tool_choice": {"type": "function", "function": {"name": "multiply"}},
        "parallel_tool_calls": False,
        "max_completion_tokens": 99,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
        },
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "safety_identifier": "u1",
        "prompt_cache_key": "k",
        "temperature": 0.5,
        "vendor": {"x": 1},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("tool_choice", {"type": "web_search"}),
        ("tool_choice", {"type": "allowed_tools", "tools": [{"type": "mcp"}]}),
        ("text", {"format": {"type": "grammar"}}),
        ("input", [{"type": "item_reference", "id": "msg_1"}]),
        ("input", [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
        ("input", [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]),
        ("input", [{"role": "assistant", "content": [{"type": "odd", "text": "x"}]}]),
        ("input", None),
    ],
)
def test_what_chat_cannot_say_is_refused_by_name(served: Served, told: Told, field: str, value: Any) -> None:
    more = {"tools": [TOOL]} if field == "tool_choice" else {}
    answer = post(served, **more, **{field: value})
    assert (answer.status, answer.error["code"]) == (400, "not_translatable")
    assert answer.error["param"].partition(".")[0].partition("[")[0] == field
    assert told.seen == []


def test_who_speaks_responses_is_asked_for_what_chat_cannot_say(served: Served, told: Told) -> None:
    kept = {"id": "resp_9", "object": "response", "output": []}
    told.say = lambda _: whole(kept)
    assert post(served, model="whole", previous_response_id="resp_1").json == kept
    assert told.last.path == "/v1/responses"
    # What a gateway made of a chat answer is kept nowhere, and who goes on from it is told so.
    told.say = lambda _: whole(completion({"content": "x"}, "stop"))
    made = post(served).json["id"]
    assert post(served, model="turnout/auto", previous_response_id=made).error["code"] == "not_translatable"


@pytest.mark.parametrize("model", ["small", "large", "gemini"])
def test_the_clients_own_stream_puts_the_answer_together(
    client: openai.OpenAI, served: Served, told: Told, claude: AnthropicUpstream, model: str
) -> None:
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    if model == "gemini":
        told.say = lambda _: stream(stream_of(*GEMINI_CHUNKS), size=40)
    with client.responses.stream(model=model, input=HISTORY, tools=[TOOL]) as events:
        seen = list(events)
        got = events.get_final_response()
    kinds = [item.type for item in got.output]
    assert kinds[:3] == ["reasoning", "message", "function_call"]
    assert got.output_text.startswith("It is 391.")
    assert got.usage is not None
    assert got.usage.input_tokens == 150
    assert [event.sequence_number for event in seen if hasattr(event, "sequence_number")] == list(
        range(len(seen))
    )
    assert [seen[0].type, seen[1].type, seen[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    called = got.output[2]
    assert called.type == "function_call"
    assert called.arguments.replace(" ", "") in ('{"a":17}', '{"a":17,"b":23}')
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == got.output_text


@pytest.mark.parametrize("model", ["large", "gemini"])
def test_other_languages_are_asked_by_way_of_chat(
    client: openai.OpenAI, served: Served, told: Told, claude: AnthropicUpstream, model: str
) -> None:
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    told.say = lambda _: whole(gemini_answer({"text": "It is 391."}, CALL))
    got = client.responses.create(
        model=model,
        input=[*HISTORY[1:]],
        instructions="be brief",
        tools=[TOOL],
        reasoning={"effort": "low"},
        max_output_tokens=2000,
    )
    assert got.output_text.startswith("It is 391.")
    assert [item.type for item in got.output][-2:] == ["message", "function_call"]
    if model == "large":
        asked = claude.seen[-1]
        assert asked["system"] == "be brief"
        assert [block["type"] for block in asked["messages"][1]["content"]] == [
            "text",
            "tool_use",
            "tool_use",
        ]
        assert [b["type"] for b in asked["messages"][2]["content"]][:2] == ["tool_result", "tool_result"]
    else:
        asked = told.last.json
        assert asked["systemInstruction"] == {"parts": [{"text": "be brief"}]}
        assert [sorted(part) for part in asked["contents"][1]["parts"]] == [
            ["text"],
            ["functionCall"],
            ["functionCall"],
        ]


def test_a_form_that_is_asked_for_comes_back_parsed(client: openai.OpenAI, told: Told) -> None:
    class Product(pydantic.BaseModel):
        a: int

    told.say = lambda _: whole(completion({"content": '{"a": 391}'}, "stop"))
    got = client.responses.parse(model="small", input="17 * 23?", text_format=Product)
    assert got.output_parsed == Product(a=391)
    assert told.last.json["response_format"]["json_schema"]["name"] == "Product"


def test_a_loop_of_calls_goes_through(client: openai.OpenAI, told: Told) -> None:
    told.say = lambda _: whole(completion(SAID, "tool_calls"))
    first = client.responses.create(model="small", input="17 * 23?", tools=[TOOL])
    results: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "391"}
        for item in first.output
        if item.type == "function_call"
    ]
    history: Any = [{"role": "user", "content": "17 * 23?"}, *first.output, *results]
    told.say = lambda _: whole(completion({"content": "391"}, "stop"))
    assert client.responses.create(model="small", input=history, tools=[TOOL]).output_text == "391"
    assert told.last.json["messages"][1:] == [
        {"role": "assistant", "content": "It is 391.", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "call_1", "content": "391"},
        {"role": "tool", "tool_call_id": "call_2", "content": "391"},
    ]


def test_a_cut_stream_and_an_upstreams_error(client: openai.OpenAI, served: Served, told: Told) -> None:
    told.say = lambda _: stream(sse(*CHUNKS[:5], done=False), is_cut=True)
    answer = post(served, stream=True)
    last = answer.body.split(b"\n\n")[-2]
    assert last.startswith(b"event: error\n")
    assert b"response.completed" not in answer.body
    assert row(served.ledger, answer.decision_id)["error"] == "upstream_cut"
    error = {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "x"}
    told.say = lambda _: whole({"error": error}, 429)
    with pytest.raises(openai.RateLimitError, match="limits how much this gateway may ask"):
        client.responses.create(model="small", input="x")
    told.say = lambda _: whole({"no": "choices"})
    assert post(served).error["code"] == "upstream_error"
