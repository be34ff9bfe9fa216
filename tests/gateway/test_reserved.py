"""What is reserved is what may be spent: by the limit that is read, and by all that is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.client import call
from tests.gateway.test_keys import ask_as, serving
from tests.gateway.upstream import Upstream
from turnout.core import Candidate, PriceCard
from turnout.gateway.afford import most_output_tokens, most_usd
from turnout.gateway.protocols import PROTOCOLS
from turnout.gateway.settings_providers import GeminiSettings
from turnout.gateway.stream import MOST_TOKENS
from turnout.gateway.translate.chat_request_as_gemini import gemini_request
from turnout.gateway.wire import ChatRequest

CARD = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
ONE = Candidate(model="m", price_card=CARD)
PARSE = {protocol.name: protocol.parse for protocol in PROTOCOLS}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "responses": {"input": "hi"},
    "messages": {"messages": [{"role": "user", "content": "hi"}]},
}
MB = 1_000_000


def parse(api: str, **fields: Any) -> ChatRequest:
    return PARSE[api](json.dumps({"model": "m", **BODIES[api], **fields}).encode())


@pytest.mark.parametrize(
    ("api", "fields", "tokens"),
    [
        ("chat", {"max_completion_tokens": 1000, "max_output_tokens": 1}, 1000),
        ("chat", {"max_completion_tokens": 1000, "max_tokens": 1}, 1000),
        ("chat", {"max_completion_tokens": 1, "max_tokens": 1000}, 1000),
        ("chat", {"max_output_tokens": 1}, 77),
        ("chat", {"max_tokens": 10, "n": 3}, 30),
        ("chat", {"max_tokens": "1000"}, 1000),
        ("chat", {"max_tokens": 1000.0}, 1000),
        ("chat", {"max_tokens": 0}, 77),
        ("chat", {"max_tokens": None}, 77),
        ("chat", {"max_tokens": 1, "max_completion_tokens": -1}, 77),
        ("messages", {"max_tokens": -1}, 77),
        ("chat", {"max_tokens": [1]}, 77),
        ("responses", {"max_output_tokens": 1000, "max_tokens": 1, "max_completion_tokens": 1}, 1000),
        ("responses", {"max_tokens": 1}, 77),
        ("messages", {"max_tokens": 1000, "max_output_tokens": 1, "max_completion_tokens": 1}, 1000),
    ],
)
def test_only_the_limit_that_the_api_reads_counts(api: str, fields: dict, tokens: int) -> None:
    assert most_output_tokens(parse(api, **fields), ONE, 77) == tokens


def test_a_candidates_own_budget_is_the_smaller_of_two() -> None:
    own = Candidate(model="m", price_card=CARD, max_output_tokens=50)
    assert most_output_tokens(parse("chat", max_tokens=1000), own, 77) == 50
    assert most_output_tokens(parse("chat", max_tokens=20, max_output_tokens=1), own, 77) == 20


def test_a_limit_that_a_translator_reads_is_the_one_that_was_reserved() -> None:
    for given in (1000, 1000.0, "1000"):
        request = parse("chat", max_completion_tokens=given)
        assert most_output_tokens(request, ONE, 77) == 1000
        told = gemini_request(request.members, candidate=ONE, settings=GeminiSettings(base_url="http://x"))
        assert b'"maxOutputTokens":1000' in told


@pytest.mark.parametrize("number", [1e300, 10**40, 1e18])
def test_numbers_beyond_all_bounds_are_bounded(number: float) -> None:
    request = parse("chat", max_tokens=number, n=number)
    assert most_output_tokens(request, ONE, 77) == MOST_TOKENS
    assert most_usd(request, ONE, 77) == pytest.approx(MOST_TOKENS * 4.0 / 1e6, rel=1e-3)


def test_a_clients_numbers_are_no_error_of_the_gateway(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, budget_usd=1.0, tokens_per_min=1000) as ready:
        answer = ask_as(ready, model="small", max_tokens=1e300, n=1e300)
        assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
        assert ask_as(ready, model="small", max_tokens=5).status in (200, 429)


def test_a_limit_that_nobody_reads_bypasses_no_budget(upstream: Upstream, tmp_path: Path) -> None:
    """Thirty at once, and money for one answer of 10,000 tokens."""
    upstream.behave["small"] = "late"
    budget = 1.5 * (10_000 * 0.4 + 20 * 0.1) / 1e6
    fields: dict[str, Any] = {"model": "small", "max_completion_tokens": 10_000, "max_output_tokens": 1}
    with serving(upstream, tmp_path, budget_usd=budget) as ready, ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(lambda _: ask_as(ready, **fields).status, range(30)))
    assert sorted(statuses) == [200] + [429] * 29


LONG = json.dumps({"a": "x" * 4000})
SCHEMA = {"type": "object", "properties": {"a": {"description": "x" * 4000}}}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": LONG}}
READ: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALLED]}]}),
    ("chat", {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": LONG}}]}),
    ("chat", {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "x" * 4000}]}),
    ("chat", {"messages": [{"role": "tool", "tool_call_id": "c", "content": LONG}]}),
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}}),
    ("chat", {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}),
    ("responses", {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": LONG}]}),
    ("responses", {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": LONG}]}),
    ("responses", {"input": [{"type": "function_call_output", "call_id": "c", "output": LONG}]}),
    ("responses", {"text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}}),
    ("responses", {"instructions": LONG}),
    *(
        ("messages", {"messages": [{"role": "user", "content": [block]}]})
        for block in (
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "x" * 4000}},
            {"type": "tool_result", "tool_use_id": "t", "content": "x" * 4000},
            {"type": "thinking", "thinking": "x" * 4000, "signature": "s"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 4000}},
        )
    ),
    ("messages", {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
]


@pytest.mark.parametrize(("api", "fields"), READ, ids=lambda one: str(one)[:60])
def test_all_that_a_model_reads_is_part_of_the_prompt(api: str, fields: dict[str, Any]) -> None:
    assert parse(api, **fields).input_tokens == pytest.approx(1000, rel=0.05)


def test_media_count_nothing_in_results_of_tools_either() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 40_000}}
    block = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [image, {"type": "text", "text": "x" * 400}],
    }
    tokens = parse("messages", messages=[{"role": "user", "content": [block]}]).input_tokens
    assert 100 <= tokens < 120


def test_arguments_of_earlier_calls_bypass_no_budget(upstream: Upstream, tmp_path: Path) -> None:
    """A megabyte of arguments is read by the model, and reserved for."""
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * MB}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]
    with serving(upstream, tmp_path, budget_usd=0.04) as ready:
        assert ask_as(ready, model="small", messages=messages, max_tokens=1).status == 429
        told = call(
            ready.base_url,
            "/route",
            method="POST",
            body=json.dumps({"model": "small", "messages": messages}).encode(),
            headers={"authorization": "Bearer tk-a-secret-of-the-tests"},
        )
        assert told.json["request"]["input_tokens"] == pytest.approx(MB / 4, rel=0.01)
