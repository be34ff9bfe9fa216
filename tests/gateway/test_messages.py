"""Anthropic's client talks to a gateway before an upstream of Anthropic's, and before one of OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest
from anthropic.types import Message

from tests.gateway.anthropic_upstream import (
    TEXT,
    THOUGHT,
    TOOL_USE,
    AnthropicUpstream,
    anthropic_server,
    message,
)
from tests.gateway.chat_told import CHUNKS, SAID, completion
from tests.gateway.client import Answer, call, row
from tests.gateway.conftest import Served
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Told, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]
TOOL: Any = {"name": "multiply", "input_schema": {"type": "object", "properties": {}}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
HISTORY: Any = [
    {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
    {"role": "assistant", "content": [THOUGHT, TEXT, TOOL_USE]},
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [{"type": "text", "text": "391"}, IMAGE],
            },
            {"type": "text", "text": "go on"},
        ],
    },
]
EFFORT = "large[effort=high,max_output_tokens=500]"


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
    """A gateway whose `large` is Anthropic's and whose `small` speaks OpenAI's API."""
    ledger = tmp_path_factory.mktemp("messages") / "ledger.sqlite"
    plain = make_config(told.base_url, Path(ledger))
    own = {name: CandidateSettings(provider="claude", model="claude") for name in ("large", EFFORT)}
    providers = {**plain.providers, "claude": AnthropicSettings(base_url=claude.base_url)}
    config = msgspec.structs.replace(plain, providers=providers, default_provider="main", candidates=own)
    with running(config.check(), deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, claude: AnthropicUpstream, told: Told) -> Served:
    claude.reset()
    told.seen.clear()
    told.say = lambda asked: (
        stream(sse(*CHUNKS)) if asked.json.get("stream") else whole(completion(SAID, "tool_calls"))
    )
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[anthropic.Anthropic]:
    root = served.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=root, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def post(served: Served, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"model": "large", "max_tokens": 100, "messages": ASK, **fields}
    return call(
        served.base_url, "/messages", method="POST", body=json.dumps(body, indent=1).encode(), headers=headers
    )


def ask(client: anthropic.Anthropic, **fields: Any) -> Message:
    given: Any = {"model": "small", "max_tokens": 100, "messages": ASK, **fields}
    return Message.model_validate(json.loads(client.messages.with_raw_response.create(**given).text()))


def test_the_same_api_gets_and_gives_the_same_bytes(served: Served, claude: AnthropicUpstream) -> None:
    answer = post(served, {"anthropic-beta": "x-1", "anthropic-version": "2024-01-01"}, vendor=[1.50, 1e3])
    assert answer.body == claude.sent
    assert answer.headers["request-id"] == "req_1"
    sent = claude.bodies[0]
    assert b'"messages":[\n  {\n   "role": "user"' in sent, "members are copied byte for byte"
    assert b'"vendor":[\n  1.5,\n  1000.0\n ]' in sent
    assert claude.seen[0]["model"] == "claude"
    assert claude.headers[0]["anthropic-beta"] == "x-1"
    assert claude.headers[0]["anthropic-version"] == "2024-01-01"
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    assert (found["status"], found["usage_estimated"], found["text"]) == (200, 0, None)
    streamed = post(served, stream=True)
    assert streamed.body == claude.sent
    found = row(served.ledger, streamed.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)


def test_the_official_client_reads_both_ways(client: anthropic.Anthropic, claude: AnthropicUpstream) -> None:
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    expected = Message.model_validate(claude.told).content
    assert ask(client, model="large", tools=[TOOL]).content == expected
    with client.messages.stream(model="large", max_tokens=9, messages=ASK, tools=[TOOL]) as streamed:
        final = streamed.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
    assert [block.model_dump(exclude={"parsed_output"}) for block in final.content] == [
        block.model_dump() for block in expected
    ]
    assert final.usage.cache_read_input_tokens == 100


def test_a_candidates_effort_and_budget_are_written(served: Served, claude: AnthropicUpstream) -> None:
    post(
        served, model=EFFORT, max_tokens=9000, output_config={"format": {"type": "json_schema", "schema": {}}}
    )
    sent = claude.seen[0]
    assert (sent["max_tokens"], sent["thinking"]) == (500, {"type": "adaptive"})
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": {}}, "effort": "high"}
    post(served, model=EFFORT, max_tokens=20)
    assert claude.seen[1]["max_tokens"] == 20


def test_thoughts_that_nobody_signed_do_not_reach_who_would_refuse_them(
    served: Served, claude: AnthropicUpstream
) -> None:
    unsigned = {"type": "thinking", "thinking": "x", "signature": ""}
    history = [*ASK, {"role": "assistant", "content": [unsigned, THOUGHT, TEXT]}, *ASK]
    post(served, messages=history)
    assert claude.seen[0]["messages"][1]["content"] == [THOUGHT, TEXT]
    quoted = [{"role": "user", "content": 'what does "signature": "" mean?'}]
    post(served, messages=quoted)
    assert claude.seen[1]["messages"] == quoted


def test_an_answer_of_openais_comes_as_a_message(
    client: anthropic.Anthropic, served: Served, told: Told
) -> None:
    raw = client.messages.with_raw_response.create(model="small", max_tokens=100, messages=ASK)
    got = json.loads(raw.text())
    assert Message.model_validate(got).id == "msg_chatcmpl-1"
    assert [block["type"] for block in got["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert got["content"][1]["text"] == "It is 391."
    assert (got["content"][2]["id"], got["content"][2]["input"]) == ("call_1", {"a": 17})
    assert (got["stop_reason"], got["model"]) == ("tool_use", "gpt-x")
    assert got["usage"] == {
        "input_tokens": 50,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 100,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    found = row(served.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    assert (found["usage_estimated"], found["served"]) == (0, "small")


def test_a_stream_of_openais_comes_as_events(client: anthropic.Anthropic, served: Served) -> None:
    with client.messages.stream(model="small", max_tokens=100, messages=ASK) as streamed:
        final = streamed.get_final_message()
    blocks = [block.model_dump() for block in final.content]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks[0]["thinking"] == "Let me see."
    assert blocks[1]["text"] == "It is 391."
    assert [(block["id"], block["input"]) for block in blocks[2:]] == [("call_1", {"a": 17}), ("call_2", {})]
    assert final.stop_reason == "tool_use"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (50, 9)
    answer = post(served, model="small", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (150, 9, 0)
    assert (found["status"], found["error"], found["is_stream"]) == (200, None, 1)


def test_a_request_of_messages_is_said_in_chat(client: anthropic.Anthropic, told: Told) -> None:
    ask(
        client,
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        messages=HISTORY,
        tools=[{**TOOL, "description": "Multiply."}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
        metadata={"user_id": "somebody"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    sent = told.last.json
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert sent.pop("messages") == [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": [{"type": "text", "text": "look"}, url]},
        {
            "role": "assistant",
            "content": TEXT["text"],
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "multiply", "arguments": '{"a":17,"b":23}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "391"},
        {"role": "user", "content": [url, {"type": "text", "text": "go on"}]},
    ]
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    function = {"name": "multiply", "parameters": TOOL["input_schema"], "description": "Multiply."}
    assert sent == {
        "model": "small",
        "max_completion_tokens": 100,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "user": "somebody",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "temperature": 0.5,
    }


def test_a_stop_sequence_is_named_where_the_upstream_names_it(
    client: anthropic.Anthropic, told: Told
) -> None:
    text = {"role": "assistant", "content": "x"}
    told.say = lambda _: whole(completion(text, "stop", stop_reason="END"))
    assert (ask(client).stop_reason, ask(client).stop_sequence) == ("stop_sequence", "END")
    words = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
    for finish, expected in words.items():
        told.say = lambda _, finish=finish: whole(completion(text, finish))  # type: ignore[misc]
        assert ask(client).stop_reason == expected


def test_what_chat_cannot_say_is_refused_by_name_or_served_by_who_can(
    served: Served, told: Told, claude: AnthropicUpstream
) -> None:
    search = [{"type": "web_search_20250305", "name": "web_search"}]
    answer = post(served, model="small", tools=search)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert (answer.json["error"]["code"], told.seen) == ("not_translatable", [])
    named = post(served, model="turnout/auto", tools=search, messages=[{"role": "user", "content": "easy"}])
    assert named.headers["x-turnout-chosen"] == "small", "asked first, and refused"
    assert named.headers["x-turnout-model"].startswith("large")


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (404, "not_found_error", anthropic.NotFoundError),
        (429, "rate_limit_error", anthropic.RateLimitError),
    ],
)
def test_errors_of_openais_come_in_anthropics_words(
    client: anthropic.Anthropic, told: Told, status: int, kind: str, error: type[anthropic.APIStatusError]
) -> None:
    body = {"error": {"message": "told so", "type": "t", "param": None, "code": None}}
    told.say = lambda _: whole(body, status=status, **{"retry-after": "7"})
    with pytest.raises(error) as caught:
        ask(client)
    assert isinstance(caught.value.body, dict)
    error_told = caught.value.body["error"]
    assert error_told["type"] == kind
    assert ("told so" in error_told["message"]) == (status != 429), "what limits us is nobody's business"
    assert caught.value.response.headers["retry-after"] == "7"


def test_errors_of_the_gateways_own_come_in_anthropics_words(client: anthropic.Anthropic, told: Told) -> None:
    with pytest.raises(anthropic.NotFoundError, match="did you mean 'small'"):
        ask(client, model="smal")
    told.say = lambda _: whole({}, status=500)
    with pytest.raises(anthropic.InternalServerError) as caught:
        ask(client)
    assert caught.value.type == "api_error"
    told.say = lambda _: whole({"choices": []})
    with pytest.raises(anthropic.InternalServerError, match="without an answer"):
        ask(client)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 1}',
        b'{"model": "small"}',
        b'{"model": "small", "messages": []}',
        b"\xff",
    ],
)
def test_a_body_that_is_wrong_is_a_400_in_anthropics_words(served: Served, body: bytes) -> None:
    answer = call(served.base_url, "/messages", method="POST", body=body)
    assert answer.status == 400
    assert (answer.json["type"], answer.json["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize(
    ("model", "how"),
    [
        *(("small", how) for how in ("cut", "ends early", "bad event", "error event")),
        *(("large", how) for how in ("cut", "ends early", "error event")),
    ],
)
def test_a_stream_that_fails_ends_in_an_error_and_never_in_a_stop(
    client: anthropic.Anthropic, served: Served, told: Told, claude: AnthropicUpstream, how: str, model: str
) -> None:
    claude.behave = how
    data = {
        "cut": sse(*CHUNKS[:5], done=False),
        "ends early": sse(*CHUNKS[:5], done=False),
        "bad event": sse(*CHUNKS[:5], done=False) + b"data: {oops\n\n" + sse(*CHUNKS[5:]),
        "error event": sse(*CHUNKS[:5], {"error": {"message": "overloaded", "code": 529}}),
    }[how]
    told.say = lambda _: stream(data, is_cut=how == "cut")
    answer = post(served, model=model, stream=True)
    *_, last = answer.body.split(b"\n\n")[:-1]
    assert last.startswith(b"event: error\ndata: ")
    assert b"event: message_stop" not in answer.body
    with (
        pytest.raises(anthropic.APIError),
        client.messages.stream(model=model, max_tokens=9, messages=ASK) as streamed,
    ):
        streamed.get_final_message()


def test_the_router_chooses_by_the_last_words_of_the_user(served: Served, claude: AnthropicUpstream) -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "391"}
    history = [
        {"role": "user", "content": "an easy one"},
        {"role": "assistant", "content": [TOOL_USE]},
        {"role": "user", "content": [result]},
    ]
    assert post(served, model="turnout/auto", messages=history).headers["x-turnout-model"] == "small"
    assert "large" in post(served, model="turnout/auto").headers["x-turnout-model"]


def test_a_request_is_counted_by_estimate_and_nobody_is_asked(
    client: anthropic.Anthropic, served: Served, claude: AnthropicUpstream, told: Told
) -> None:
    raw = client.messages.with_raw_response.count_tokens(
        model="large", messages=[{"role": "user", "content": "x" * 400}], system="y" * 38
    )
    assert raw.parse().input_tokens == 110
    assert raw.headers["x-turnout-usage-estimated"] == "true"
    assert (claude.seen, told.seen) == ([], [])
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model="large", messages=[])
