"""OpenAI's client talks to an upstream of Bedrock's, which gets what boto3 sends and botocore signs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import msgspec
import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.client import ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.converse_told import CALL, FRAMES, STREAM, TEXT, THOUGHT, USAGE, answer, frame
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Told, stream, told_server, whole
from turnout.core.errors import ConfigError
from turnout.gateway.lifecycle import running
from turnout.gateway.providers import build
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import BedrockSettings
from turnout.gateway.translate.converse_as_messages import ConverseAsChat
from turnout.gateway.translate.events import BadEventError

MODEL = "anthropic.claude-x-v1:0"
EFFORT = "large[effort=high,max_output_tokens=500]"
KIND = "application/vnd.amazon.eventstream"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "multiply", "description": "Multiply.", "parameters": SCHEMA}}
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 17}'}}
MARKED = {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}
THOUGHT_BEFORE = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
NAMED = {"type": "function", "function": {"name": "multiply"}}
HISTORY: Any = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [MARKED, IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [CALLED], "thinking_blocks": [THOUGHT_BEFORE]},
    {"role": "tool", "tool_call_id": "c1", "content": "391"},
]
CLOSED = {**SCHEMA, "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": CLOSED}}


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture(scope="module")
def stand(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("bedrock") / "ledger.sqlite"
    root = told.base_url.removesuffix("/v1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "BEARER": "bearer key"}.items():
            patch.setenv(name, value)
        own = CandidateSettings(model=MODEL)
        config = msgspec.structs.replace(
            make_config("http://x", Path(ledger)),
            providers={
                "bedrock": BedrockSettings(base_url=root, region="eu-west-1"),
                "by key": BedrockSettings(base_url=root, api_key_env="BEARER"),
            },
            default_provider="bedrock",
            candidates={"large": own, EFFORT: own, "small": CandidateSettings(provider="by key")},
        ).check()
        with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
            yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, told: Told) -> Served:
    told.seen.clear()
    said = answer(THOUGHT, {"text": TEXT}, CALL, stop="tool_use")
    told.say = lambda asked: stream(STREAM, kind=KIND) if "stream" in asked.path else whole(said)
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def official(told: Told, **params: Any) -> Asked:
    """Return what boto3 sends for the same question."""
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=told.base_url.removesuffix("/v1"),
        region_name="eu-west-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=KEYS["AWS_SESSION_TOKEN"],
        config=BotoConfig(retries={"total_max_attempts": 1}),
    )
    client.converse(modelId=MODEL, **params)
    client.close()
    return told.last


def check_signature(asked: Asked, root: str) -> None:
    """Sign again with botocore, at the moment that the request states, and compare."""
    names = asked.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: asked.headers[name] for name in names}
    request = AWSRequest("POST", root + asked.path, headers=headers, data=asked.body)
    request.context["timestamp"] = asked.headers["x-amz-date"]
    signer = SigV4Auth(Credentials(*KEYS.values()), "bedrock", "eu-west-1")
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert asked.headers["authorization"].endswith(f"Signature={signature}")
    assert {"host", "x-amz-date", "x-amz-security-token", "content-type"} <= set(names)


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_signature_is_botocores(served: Served, told: Told, is_stream: bool) -> None:
    ask(served.base_url, model="large", messages=ASK, stream=is_stream)
    assert told.last.path == f"/model/anthropic.claude-x-v1%3A0/converse{'-stream' if is_stream else ''}"
    check_signature(told.last, told.base_url.removesuffix("/v1"))


def test_the_check_of_the_signature_sees_a_change(served: Served, told: Told) -> None:
    ask(served.base_url, model="large", messages=ASK)
    told.last.body += b" "
    with pytest.raises(AssertionError):
        check_signature(told.last, told.base_url.removesuffix("/v1"))


def test_an_api_key_stands_for_a_signature(served: Served, told: Told) -> None:
    ask(served.base_url, model="small", messages=ASK)
    assert told.last.headers["authorization"] == "Bearer bearer key"
    assert "x-amz-date" not in told.last.headers


def test_what_is_sent_is_what_boto3_sends(served: Served, told: Told) -> None:
    ask(
        served.base_url,
        model=EFFORT,
        messages=HISTORY,
        tools=TOOLS,
        tool_choice="required",
        response_format=FORM,
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        top_k=5,
    )
    ours = told.last
    tool = {"name": "multiply", "description": "Multiply.", "inputSchema": {"json": SCHEMA}}
    reasoning = {"reasoningText": {"text": "Hm.", "signature": "c2lnbmVk"}}
    result = {"toolUseId": "c1", "content": [{"text": "391"}]}
    theirs = official(
        told,
        system=[{"text": "be brief"}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"text": "look"},
                    {"cachePoint": {"type": "default"}},
                    {"image": {"format": "png", "source": {"bytes": base64.b64decode("aGk=")}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": reasoning},
                    {"toolUse": {"toolUseId": "c1", "name": "multiply", "input": {"a": 17}}},
                ],
            },
            {"role": "user", "content": [{"toolResult": result}]},
        ],
        toolConfig={"tools": [{"toolSpec": tool}], "toolChoice": {"any": {}}},
        inferenceConfig={"maxTokens": 500, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
        outputConfig={
            "effort": "high",
            "textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"name": "answer", "schema": json.dumps(CLOSED)}},
            },
        },
        additionalModelRequestFields={"top_k": 5},
    )
    assert ours.path == theirs.path
    assert ours.json == theirs.json


def test_a_whole_answer_comes_as_a_completion(client: openai.OpenAI, served: Served) -> None:
    raw = client.chat.completions.with_raw_response.create(model="large", messages=ASK)
    got = ChatCompletion.model_validate(json.loads(raw.text))
    assert (got.model, got.choices[0].finish_reason) == (MODEL, "tool_calls")
    said = got.choices[0].message
    assert (said.content, (said.model_extra or {})["reasoning_content"]) == (TEXT, "Let me see.")
    calls = [call.model_dump() for call in said.tool_calls or []]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 17, "b": 23}
    found = row(served.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)


def test_only_anthropics_models_read_their_cache_at_a_tenth(client: openai.OpenAI, served: Served) -> None:
    for model, usd_per_mtok, of_input in (("large", (1.0, 4.0), 0.1), ("small", (0.1, 0.4), 1.0)):
        raw = client.chat.completions.with_raw_response.create(model=model, messages=ASK)
        found = row(served.ledger, raw.headers["x-turnout-decision-id"])
        # 20 are new, 100 were read and 30 written.
        told = (20 + 100 * of_input + 30 * 1.25) * usd_per_mtok[0] + 9 * usd_per_mtok[1]
        assert found["usd"] == pytest.approx(told / 1e6), model


def test_the_stream_of_the_tests_is_one_that_botocore_reads() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(STREAM)
    kinds = [message.headers[":event-type"] for message in buffer]
    assert (kinds[0], kinds[-1], len(kinds)) == ("messageStart", "metadata", len(FRAMES))


def test_a_stream_says_the_same(served: Served) -> None:
    answered = ask(
        served.base_url, model="large", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = events_of(answered.body)
    told = [ChatCompletionChunk.model_validate(json.loads(chunk)) for chunk in chunks]
    assert last == "[DONE]"
    assert answered.headers["content-type"].startswith("text/event-stream")
    deltas = [chunk.choices[0].delta for chunk in told[:-1]]
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    kept = [block for delta in deltas for block in (delta.model_extra or {}).get("thinking_blocks", [])]
    assert kept == [{"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"}]
    spelt = "".join(c.function.arguments or "" for d in deltas for c in d.tool_calls or [] if c.function)
    assert json.loads(spelt) == {"a": 17, "b": 23}
    assert any(chunk.choices[0].finish_reason == "tool_calls" for chunk in told[:-1])
    assert told[-1].usage is not None
    assert (told[-1].usage.prompt_tokens, told[-1].usage.completion_tokens) == (150, USAGE["outputTokens"])
    assert row(served.ledger, answered.decision_id)["cached_tokens"] == 100


def test_errors_come_in_openais_words(served: Served, client: openai.OpenAI, told: Told) -> None:
    headers = {"x-amzn-errortype": "ValidationException:http://x"}
    told.say = lambda _: whole({"message": "told so"}, 400, **headers)
    with pytest.raises(openai.BadRequestError, match="told so") as caught:
        client.chat.completions.create(model="large", messages=ASK)
    assert caught.value.code == "ValidationException"
    told.say = lambda _: whole({"nothing": 1})
    assert ask(served.base_url, model="large", messages=ASK).error["code"] == "upstream_error"
    exception = frame("throttlingException", {"message": "slow down"}, message="exception")
    told.say = lambda _: stream(STREAM[: sum(map(len, FRAMES[:3]))] + exception, kind=KIND)
    *_, last = events_of(ask(served.base_url, model="large", messages=ASK, stream=True).body)
    assert json.loads(last)["error"]["code"] == "throttlingException"
    told.say = lambda _: stream(exception, kind=KIND, size=10_000)
    assert ask(served.base_url, model="large", messages=ASK, stream=True).status == 502


@pytest.mark.parametrize("data", [b"".join(FRAMES[:6]), STREAM[:300], STREAM[:400] + b"\0" + STREAM[401:]])
def test_a_cut_or_damaged_stream_ends_in_an_error(served: Served, told: Told, data: bytes) -> None:
    told.say = lambda _: stream(data, kind=KIND)
    answered = ask(served.base_url, model="large", messages=ASK, stream=True)
    *_, last = events_of(answered.body)
    assert json.loads(last)["error"]["code"] in ("upstream_cut", "upstream_bad_event")
    assert b"data: [DONE]" not in answered.body


def test_what_has_no_counterpart_is_refused(served: Served, told: Told) -> None:
    assert ask(served.base_url, None, model="large", messages=ASK, tools=TOOLS, n=2).status == 400
    assert told.seen == []


def test_no_tool_is_offered_where_none_shall_be_called(served: Served, told: Told) -> None:
    ask(served.base_url, model="large", messages=ASK, tools=TOOLS, tool_choice="none")
    assert "toolConfig" not in told.last.json
    # Bedrock wants the tools of calls that stand in the conversation, and has no word for `none` then.
    told.seen.clear()
    answered = ask(served.base_url, model="large", messages=HISTORY, tools=TOOLS, tool_choice="none")
    assert (answered.status, answered.error["code"]) == (400, "not_translatable")
    assert "calls of tools" in answered.error["message"]
    assert told.seen == []


@pytest.mark.parametrize(
    ("choice", "theirs", "field"),
    [
        (None, None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", {"any": {}}, {"disable_parallel_tool_use": True}),
        (NAMED, {"tool": {"name": "multiply"}}, {"disable_parallel_tool_use": True}),
    ],
)
def test_one_call_at_a_time_is_said_to_who_knows_it(
    served: Served, told: Told, choice: Any, theirs: Any, field: dict[str, Any]
) -> None:
    asked = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    ask(served.base_url, model="large", messages=ASK, **asked)
    ours = told.last
    tool = {"name": "multiply", "description": "Multiply.", "inputSchema": {"json": SCHEMA}}
    config = {"tools": [{"toolSpec": tool}]} | ({} if theirs is None else {"toolChoice": theirs})
    same = official(
        told,
        messages=[{"role": "user", "content": [{"text": "What is 17 * 23?"}]}],
        inferenceConfig={},
        toolConfig=config,
        additionalModelRequestFields={"tool_choice": field},
    )
    assert ours.json == same.json
    # Another maker's model has no such field.
    told.seen.clear()
    answered = ask(served.base_url, model="small", messages=ASK, **asked)
    assert (answered.status, answered.error["param"]) == (400, "parallel_tool_calls")
    assert told.seen == []


def test_a_key_that_is_not_set_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        build("bedrock", BedrockSettings(base_url="http://x"))


def run(data: bytes, cuts: list[int]) -> list[Any]:
    translator = ConverseAsChat(answer_id="a", model="m", asks_usage=False)
    told = [translator.feed(data[low:high]) for low, high in pairwise([0, *sorted(cuts), len(data)])]
    chunks = events_of(b"".join([*told, translator.end()]))
    return [chunk if chunk == "[DONE]" else json.loads(chunk) | {"created": 0} for chunk in chunks]


def test_every_single_cut_gives_the_same() -> None:
    expected = run(STREAM, [])
    assert expected[-1] == "[DONE]"
    for place in range(len(STREAM)):
        assert run(STREAM, [place]) == expected


@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_a_shorter_or_damaged_stream_is_never_done(place: int, byte: int) -> None:
    assert "[DONE]" not in run(STREAM[:place], [])
    damaged = STREAM[:place] + bytes([byte]) + STREAM[place + 1 :]
    if damaged != STREAM:
        try:
            told = run(damaged, [])
        except BadEventError:
            return
        assert "[DONE]" not in told
