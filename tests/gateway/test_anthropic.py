"""OpenAI's client talks to an upstream that speaks Anthropic's Messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.anthropic_upstream import (
    TEXT,
    THOUGHT,
    TOOL_USE,
    AnthropicUpstream,
    anthropic_server,
    message,
)
from tests.gateway.client import NOTHING_SAID, ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "multiply",
            "description": "Multiply.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number", "minimum": 1.50}}},
        },
    }
]
EFFORT = "large[effort=high,max_output_tokens=500]"


@pytest.fixture(scope="module")
def claude() -> Iterator[AnthropicUpstream]:
    with anthropic_server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def stand(
    claude: AnthropicUpstream, one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A gateway whose `large` is Anthropic's and whose `small` is not."""
    ledger = tmp_path_factory.mktemp("anthropic") / "ledger.sqlite"
    plain = make_config(one_upstream.base_url, Path(ledger))
    config = msgspec.structs.replace(
        plain,
        providers={**plain.providers, "claude": AnthropicSettings(base_url=claude.base_url)},
        default_provider="main",
        candidates={name: CandidateSettings(provider="claude", model="claude") for name in ("large", EFFORT)},
    ).check()
    with running(config, deployment=make_deployment((SMALL, LARGE, THINKING))) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def served(stand: Served, claude: AnthropicUpstream, upstream: Upstream) -> Served:
    claude.reset()
    return stand


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def whole(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    given: Any = {"model": "large", "messages": ASK, **fields}
    raw = client.chat.completions.with_raw_response.create(**given)
    return ChatCompletion.model_validate(json.loads(raw.text))


def streamed(served: Served, **fields: Any) -> list[ChatCompletionChunk]:
    body = ask(served.base_url, model="large", messages=ASK, stream=True, **fields).body
    *chunks, last = events_of(body)
    assert last == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(chunk)) for chunk in chunks]


def test_a_question_and_its_answer(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    told = whole(client, max_tokens=50, temperature=0.2, stop="END", user="somebody")
    assert claude.seen == [
        {
            "model": "claude",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "What is 17 * 23?"}]}],
            "stop_sequences": ["END"],
            "metadata": {"user_id": "somebody"},
            "temperature": 0.2,
        }
    ]
    assert claude.headers[0]["anthropic-version"] == "2023-06-01"
    assert (told.id, told.model) == ("msg_1", "claude-20260101")
    assert (told.choices[0].finish_reason, told.choices[0].message.content) == ("stop", TEXT["text"])


def test_usage_keeps_what_the_cache_gave_and_took(client: openai.OpenAI, served: Served) -> None:
    raw = client.chat.completions.with_raw_response.create(model="large", messages=ASK)
    usage = json.loads(raw.text)["usage"]
    assert usage == {
        "prompt_tokens": 150,
        "completion_tokens": 9,
        "total_tokens": 159,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 30},
    }
    found = row(served.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (150, 9, 100)
    assert (found["usage_estimated"], found["provider"]) == (0, "claude")


def test_a_tool_is_called_and_its_result_given_back(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    told = whole(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert told.choices[0].finish_reason == "tool_calls"
    said = told.choices[0].message
    assert said.tool_calls is not None
    call = said.tool_calls[0]
    assert call.type == "function"
    assert (call.id, call.function.name) == ("toolu_1", "multiply")
    assert json.loads(call.function.arguments) == {"a": 17, "b": 23}
    sent = claude.seen[0]
    assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert sent["tools"][0]["input_schema"] == TOOLS[0]["function"]["parameters"]
    assert b'"minimum":1.5' in claude.bodies[0].replace(b" ", b"")

    history = [*ASK, said.model_dump(exclude_none=True)]
    results = [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "391"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": "go on"},
    ]
    whole(client, messages=[*history, *results], tools=TOOLS)
    turns = claude.seen[1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == [THOUGHT, TEXT, TOOL_USE], (
        "thinking goes back as it came, signature and all"
    )
    kinds = [(block["type"], block.get("tool_use_id")) for block in turns[2]["content"]]
    assert kinds == [("tool_result", "toolu_1"), ("tool_result", "toolu_2"), ("text", None)]


def test_a_stream_says_the_same(client: openai.OpenAI, served: Served, claude: AnthropicUpstream) -> None:
    claude.told = message("claude", THOUGHT, TEXT, TOOL_USE, stop="tool_use")
    chunks = streamed(served, tools=TOOLS, stream_options={"include_usage": True})
    assert {(chunk.id, chunk.model) for chunk in chunks} == {("msg_1", "claude-20260101")}
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == TEXT["text"]
    thoughts = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
    assert thoughts == THOUGHT["thinking"]
    kept = [block for delta in deltas for block in (delta.model_extra or {}).get("thinking_blocks", [])]
    assert kept == [THOUGHT]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [call.id for call in calls if call.id] == ["toolu_1"]
    assert {call.index for call in calls} == {0}
    spelt = "".join((call.function.arguments or "") for call in calls if call.function)
    assert json.loads(spelt) == TOOL_USE["input"]
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (150, 9)


def test_the_client_reads_the_stream_and_nobody_sees_a_usage_unasked(
    client: openai.OpenAI, served: Served
) -> None:
    with client.chat.completions.create(model="large", messages=ASK, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT["text"]
    assert all(chunk.usage is None for chunk in chunks)
    answer = ask(served.base_url, model="large", messages=ASK, stream=True)
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (150, 9, 0)


def test_every_stop_reason_has_its_word(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    words = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter", "stop_sequence": "stop"}
    for stop, finish in words.items():
        claude.told = {
            **message("claude", TEXT, stop=stop),
            "stop_sequence": "END" if "seq" in stop else None,
        }
        choice = whole(client).choices[0]
        assert choice.finish_reason == finish
        assert (choice.model_extra or {}).get("stop_reason") == claude.told["stop_sequence"]


def test_system_images_files_and_marks_for_the_cache(
    client: openai.OpenAI, claude: AnthropicUpstream
) -> None:
    mark = {"type": "ephemeral"}
    parts = [
        {"type": "text", "text": "look", "cache_control": mark},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
    ]
    system = {"role": "system", "content": "be brief"}
    whole(
        client,
        messages=[system, {"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}],
    )
    sent = claude.seen[0]
    assert sent["system"] == [{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}]
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "look", "cache_control": mark},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
    ]
    whole(client, messages=[system, *ASK])
    assert claude.seen[1]["system"] == "be brief"


def test_a_schema_for_the_answer_is_passed_on(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    whole(client, response_format=form)
    assert claude.seen[0]["output_config"] == {"format": {"type": "json_schema", "schema": schema}}


def test_a_candidates_effort_and_budget_are_written(client: openai.OpenAI, claude: AnthropicUpstream) -> None:
    whole(client, model=EFFORT, max_completion_tokens=9000)
    sent = claude.seen[0]
    assert (sent["max_tokens"], sent["output_config"], sent["thinking"]) == (
        500,
        {"effort": "high"},
        {"type": "adaptive"},
    )
    whole(client, reasoning_effort="none")
    assert (claude.seen[1]["thinking"], claude.seen[1]["max_tokens"]) == ({"type": "disabled"}, 8192)


def test_what_has_no_counterpart_is_refused_by_name_or_served_by_another(
    client: openai.OpenAI, served: Served, claude: AnthropicUpstream, upstream: Upstream
) -> None:
    refused: dict[str, Any] = {"n": 2, "logit_bias": {"5": 3}, "frequency_penalty": 0.5}
    for field, value in refused.items():
        answer = ask(served.base_url, model="large", messages=ASK, **{field: value})
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            400,
            "not_translatable",
            field,
        )
    for said in NOTHING_SAID:
        assert ask(served.base_url, model="large", messages=said).error["param"] == "messages"
        assert ask(served.base_url, messages=said).headers["x-turnout-model"] == "small"
    answer = ask(served.base_url, messages=ASK, n=2)
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small"), "the next one speaks it"
    assert "large: not_translatable" in row(served.ledger, answer.decision_id)["faults"]
    assert claude.seen == []
    whole(client, n=1, logprobs=False, logit_bias={}, frequency_penalty=0, seed=1, metadata={"a": "b"})
    assert sorted(claude.seen[0]) == ["max_tokens", "messages", "model"]


def test_a_member_that_nobody_knows_is_passed_on(served: Served, claude: AnthropicUpstream) -> None:
    ask(
        served.base_url,
        model="large",
        messages=ASK,
        top_k=5,
        thinking={"type": "enabled", "budget_tokens": 2000},
    )
    assert (claude.seen[0]["top_k"], claude.seen[0]["thinking"]["budget_tokens"]) == (5, 2000)


def test_the_upstreams_errors_are_told_in_openais_words(served: Served, claude: AnthropicUpstream) -> None:
    answer = ask(served.base_url, model="large", messages=ASK, thinking={"type": "odd"})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    claude.behave = "limited"
    answer = ask(served.base_url, model="large", messages=ASK)
    assert (answer.status, answer.error["type"], answer.headers["retry-after"]) == (
        429,
        "rate_limit_error",
        "7",
    )
    claude.behave = "overloaded"
    assert ask(served.base_url, messages=ASK).headers["x-turnout-model"] == "small"
    claude.behave = "no message"
    assert ask(served.base_url, model="large", messages=ASK).error["code"] == "upstream_error"
    claude.behave = "begins with an error"
    assert ask(served.base_url, messages=ASK, stream=True).headers["x-turnout-model"] == "small"


def test_an_answer_that_was_finished_is_whole_without_its_last_event(
    served: Served, claude: AnthropicUpstream
) -> None:
    claude.behave = "no stop"
    answer = ask(served.base_url, model="large", messages=ASK, stream=True)
    assert json.loads(events_of(answer.body)[-1])["choices"][0]["finish_reason"] == "stop"
    found = row(served.ledger, answer.decision_id)
    assert (found["error"], found["output_tokens"], found["usage_estimated"]) == (None, 9, 0)


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        ("cut", "upstream_cut"),
        ("ends early", "upstream_cut"),
        ("bad event", "upstream_bad_event"),
        ("error event", "overloaded_error"),
    ],
)
def test_a_stream_that_fails_ends_in_an_error_and_never_in_done(
    client: openai.OpenAI, served: Served, claude: AnthropicUpstream, behave: str, code: str
) -> None:
    claude.behave = behave
    answer = ask(served.base_url, model="large", messages=ASK, stream=True)
    *_, last = events_of(answer.body)
    assert json.loads(last)["error"]["code"] == code
    assert b"data: [DONE]" not in answer.body
    stream = client.chat.completions.create(model="large", messages=ASK, stream=True)
    with pytest.raises(openai.APIError), stream:
        list(stream)
