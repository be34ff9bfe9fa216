"""OpenAI's client talks to an upstream of Gemini's, which gets what Google's own client sends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.client import NOTHING_SAID, ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.gemini_told import CALL, CHUNKS, OTHER, THOUGHT, answer, stream_of
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Told, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import GeminiSettings
from turnout.gateway.translate.events import BadEventError
from turnout.gateway.translate.gemini_answer_as_chat import GeminiAsChat

EFFORT = "large[effort=high,max_output_tokens=500]"
ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "multiply", "description": "Multiply.", "parameters": SCHEMA}}
]
TEXT = "It is 391. caf\u00e9 \U0001f600"


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture(scope="module")
def stand(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("gemini") / "ledger.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMINI_KEY", "secret")
        base_url = told.base_url.replace("/v1", "/v1beta")
        own = {"model": CandidateSettings(model="gemini-x")}
        config = msgspec.structs.replace(
            make_config("http://x", Path(ledger)),
            providers={
                "google": GeminiSettings(base_url=base_url, api_key_env="GEMINI_KEY"),
                "older": GeminiSettings(base_url=base_url, thinking_field="thinkingBudget"),
            },
            default_provider="google",
            candidates={
                "large": own["model"],
                EFFORT: own["model"],
                "small": CandidateSettings(provider="older"),
            },
        ).check()
        with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
            yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, told: Told) -> Served:
    told.seen.clear()
    told.say = lambda asked: (
        stream(stream_of(*CHUNKS))
        if "stream" in asked.path
        else whole(answer(THOUGHT, {"text": TEXT}, CALL, OTHER))
    )
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def google(told: Told, contents: Any, config: types.GenerateContentConfig | None, *, is_stream: bool) -> Any:
    """Return what Google's own client sends for the same question."""
    options = types.HttpOptions(base_url=told.base_url.removesuffix("/v1"), api_version="v1beta")
    client = genai.Client(api_key="secret", http_options=options)
    try:
        if is_stream:
            list(client.models.generate_content_stream(model="gemini-x", contents=contents, config=config))
        else:
            client.models.generate_content(model="gemini-x", contents=contents, config=config)
    finally:
        client.close()
    return told.last


def camel(value: Any) -> Any:
    """Return a document with its names in one spelling: the API takes both, Google's client mixes them."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {name: re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in value}
    return {names[name]: camel(item) for name, item in value.items()}


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_is_sent_is_what_googles_client_sends(served: Served, told: Told, is_stream: bool) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    call = {"id": "c1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 17}'}}
    call["extra_content"] = {"google": {"thought_signature": "c2lnbmVk"}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "391"},
        {"role": "user", "content": "go on"},
    ]
    fields: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "max_tokens": 50}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    asked = {"tools": TOOLS, "tool_choice": "required", "response_format": form, **fields}
    ask(served.base_url, model="large", messages=messages, stream=is_stream, **asked)
    ours = told.last
    answered = types.Part(
        function_response=types.FunctionResponse(id="c1", name="multiply", response={"output": "391"})
    )
    contents = [
        types.Content(
            role="user",
            parts=[types.Part(text="look"), types.Part.from_bytes(data=b"hi", mime_type="image/png")],
        ),
        types.Content(
            role="model",
            parts=[
                types.Part(
                    function_call=types.FunctionCall(id="c1", name="multiply", args={"a": 17}),
                    thought_signature=b"signed",
                )
            ],
        ),
        types.Content(role="user", parts=[answered, types.Part(text="go on")]),
    ]
    declared = types.FunctionDeclaration(
        name="multiply", description="Multiply.", parameters_json_schema=SCHEMA
    )
    mode = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
    config = types.GenerateContentConfig(
        system_instruction=types.Content(parts=[types.Part(text="be brief")]),
        tools=[types.Tool(function_declarations=[declared])],
        tool_config=types.ToolConfig(function_calling_config=mode),
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop_sequences=["END"],
        max_output_tokens=50,
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
    )
    theirs = google(told, contents, config, is_stream=is_stream)
    assert ours.path == theirs.path
    assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"] == "secret"
    assert ours.json == camel(theirs.json)


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (EFFORT, None, {"thinkingLevel": "HIGH"}),
        ("large", "minimal", {"thinkingLevel": "MINIMAL"}),
        ("large", "max", {"thinkingLevel": "HIGH"}),
        ("large", "none", {"thinkingBudget": 0}),
        ("small", "medium", {"thinkingBudget": 8192}),
    ],
)
def test_an_effort_is_a_level_or_a_budget(
    served: Served, told: Told, model: str, effort: str | None, expected: dict[str, Any]
) -> None:
    ask(served.base_url, model=model, messages=ASK, max_tokens=9000, reasoning_effort=effort)
    config = told.last.json["generationConfig"]
    types.GenerationConfig.model_validate(config)
    assert config["thinkingConfig"] == expected
    assert config["maxOutputTokens"] == (500 if model == EFFORT else 9000)


def test_a_whole_answer_comes_as_a_completion(client: openai.OpenAI, served: Served) -> None:
    raw = client.chat.completions.with_raw_response.create(model="large", messages=ASK)
    got = ChatCompletion.model_validate(json.loads(raw.text))
    assert (got.id, got.model, got.choices[0].finish_reason) == ("r1", "gemini-x-001", "tool_calls")
    said = got.choices[0].message
    assert said.content == TEXT
    assert (said.model_extra or {})["reasoning_content"] == "Let me see."
    calls = [call.model_dump() for call in said.tool_calls or []]
    assert [call["id"] for call in calls] == ["call_r1_0_0", "own id"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 17, "b": 23}
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2lnbmVk"}}
    assert got.usage is not None
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (150, 9)
    found = row(served.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)


def test_a_stream_says_the_same(served: Served) -> None:
    answered = ask(
        served.base_url, model="large", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = events_of(answered.body)
    told = [ChatCompletionChunk.model_validate(json.loads(chunk)) for chunk in chunks]
    assert last == "[DONE]"
    deltas = [chunk.choices[0].delta for chunk in told[:-1]]
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    assert [call.index for delta in deltas for call in delta.tool_calls or []] == [0, 1]
    assert told[-2].choices[0].finish_reason == "tool_calls"
    assert told[-1].usage is not None
    assert (told[-1].usage.prompt_tokens, told[-1].usage.completion_tokens) == (150, 9)
    assert row(served.ledger, answered.decision_id)["output_tokens"] == 9


def test_words_for_the_end(client: openai.OpenAI, told: Told) -> None:
    words = {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "SAFETY": "content_filter",
        "RECITATION": "content_filter",
    }
    for reason, finish in words.items():
        told.say = lambda _, reason=reason: whole(answer({"text": "x"}, finish=reason))  # type: ignore[misc]
        assert client.chat.completions.create(model="large", messages=ASK).choices[0].finish_reason == finish
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "responseId": "r1", "modelVersion": "x"}
    types.GenerateContentResponse.model_validate(blocked)
    told.say = lambda _: whole(blocked)
    choice = client.chat.completions.create(model="large", messages=ASK).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("content_filter", "")


def test_errors_come_in_openais_words(served: Served, client: openai.OpenAI, told: Told) -> None:
    error = {"error": {"code": 400, "message": "told so", "status": "INVALID_ARGUMENT"}}
    told.say = lambda _: whole(error, 400)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="large", messages=ASK)
    assert (caught.value.code, caught.value.type) == ("invalid_argument", "invalid_argument")
    told.say = lambda _: whole({"nothing": 1})
    assert ask(served.base_url, model="large", messages=ASK).error["code"] == "upstream_error"
    told.say = lambda _: stream(stream_of(*CHUNKS[:2], error))
    *_, last = events_of(ask(served.base_url, model="large", messages=ASK, stream=True).body)
    assert json.loads(last)["error"]["message"] == "told so"
    told.say = lambda _: stream(stream_of(error))
    assert ask(served.base_url, model="large", messages=ASK, stream=True).status == 502


@pytest.mark.parametrize(("data", "is_cut"), [(stream_of(*CHUNKS[:3]), False), (stream_of(*CHUNKS), True)])
def test_a_cut_stream_ends_in_an_error_and_never_in_done(
    served: Served, told: Told, data: bytes, is_cut: bool
) -> None:
    told.say = lambda _: stream(data, is_cut=is_cut)
    answered = ask(served.base_url, model="large", messages=ASK, stream=True)
    *_, last = events_of(answered.body)
    assert json.loads(last)["error"]["code"] == "upstream_cut"
    assert b"data: [DONE]" not in answered.body


def test_what_has_no_counterpart_is_refused(served: Served, told: Told) -> None:
    fields: dict[str, Any] = {"logit_bias": {"5": 1}, "logprobs": True}
    for field, value in fields.items():
        answered = ask(served.base_url, model="large", messages=ASK, **{field: value})
        assert (answered.status, answered.error["param"]) == (400, field)
    for said in NOTHING_SAID:
        assert ask(served.base_url, model="large", messages=said).error["param"] == "messages"
    assert told.seen == []


STREAM = stream_of(*CHUNKS)


def run(data: bytes, cuts: list[int], num_choices: int = 1) -> bytes:
    translator = GeminiAsChat(asks_usage=False, num_choices=num_choices)
    told = [translator.feed(data[low:high]) for low, high in pairwise([0, *sorted(cuts), len(data)])]
    return b"".join([*told, translator.end()])


def test_every_single_cut_gives_the_same() -> None:
    expected = [json.loads(part) | {"created": 0} for part in events_of(run(STREAM, []))[:-1]]
    for place in range(len(STREAM)):
        told = events_of(run(STREAM, [place]))
        assert [json.loads(part) | {"created": 0} for part in told[:-1]] == expected


@given(st.integers(0, len(STREAM) - 1), st.binary(max_size=30))
def test_a_shorter_stream_or_garbage_is_never_done(length: int, garbage: bytes) -> None:
    assert b"[DONE]" not in run(STREAM[:length], [])
    assert b"[DONE]" not in run(STREAM, [], num_choices=2)
    try:
        told = run(STREAM[:length] + b"\r\n\r\ndata: " + garbage + b"\r\n\r\n", [])
    except BadEventError:
        return
    assert (b"[DONE]" in told) is (b'"finishReason"' in STREAM[:length] and length >= len(STREAM) - 4)
