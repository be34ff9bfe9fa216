"""The official client talks to a gateway in front of a real upstream."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.gateway.client import ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.upstream import NUM_EVENTS, Upstream, completion

HARD: Any = [{"role": "user", "content": "prove it"}]
EASY: Any = [{"role": "user", "content": "an easy one"}]
TEXT = "".join(f"w{number} " for number in range(NUM_EVENTS))


def test_an_answer_comes_back_as_the_upstream_wrote_it(gateway: Served, upstream: Upstream) -> None:
    answer = ask(gateway.base_url, messages=EASY)
    assert answer.status == 200
    assert answer.body == completion("small")
    assert answer.json["model"] == "small-0613", "the body reports what really served"


def test_the_router_chooses_by_the_question(client: openai.OpenAI, upstream: Upstream) -> None:
    for messages, expected in ((EASY, "small"), (HARD, "large[effort=high,max_output_tokens=500]")):
        raw = client.chat.completions.with_raw_response.create(model="turnout/auto", messages=messages)
        assert raw.headers["x-turnout-model"] == expected
        assert raw.parse().choices[0].message.content == "caf\u00e9 / 1.50"
        assert upstream.last.json["model"] == expected.partition("[")[0]


def test_headers_say_who_answered_and_why(gateway: Served) -> None:
    headers = ask(gateway.base_url, messages=EASY).headers
    assert headers["x-turnout-reason"] == "highest estimated quality"
    assert 0 < int(headers["x-turnout-decision-us"]) < 1_000_000
    assert headers["x-turnout-propensity"] == "1"
    assert headers["x-turnout-provider"] == "main"
    assert len(headers["x-turnout-decision-id"]) == 28
    assert not {"x-turnout-replay", "x-turnout-usage-estimated", "x-turnout-chosen"} & set(headers)


def test_a_named_candidate_bypasses_the_router_and_is_in_the_ledger(gateway: Served) -> None:
    answer = ask(gateway.base_url, model="large", messages=EASY)
    assert answer.headers["x-turnout-model"] == "large"
    assert answer.headers["x-turnout-reason"] == "named"
    found = row(gateway.ledger, answer.decision_id)
    assert (found["requested_model"], found["chosen"], found["reason"]) == ("large", "large", "named")
    assert (found["price"], found["expected_quality"], found["goal"]) == (None, None, None)


def test_an_unknown_model_is_a_404_with_the_nearest_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="larg", messages=HARD)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "did you mean 'large'" in str(caught.value)


def test_a_stream_arrives_whole_and_in_order(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="turnout/auto", messages=EASY, stream=True) as stream:
        chunks = list(stream)
    assert len(chunks) == NUM_EVENTS + 2
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage_is_passed_on_byte_for_byte(gateway: Served, upstream: Upstream) -> None:
    answer = ask(gateway.base_url, messages=EASY, stream=True, stream_options={"include_usage": True})
    assert answer.body == b"".join(upstream.sent)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"


def test_usage_that_nobody_asked_for_is_counted_and_taken_out_again(
    gateway: Served, upstream: Upstream
) -> None:
    answer = ask(gateway.base_url, messages=EASY, stream=True, stream_options={"include_obfuscation": False})
    sent = upstream.last.json["stream_options"]
    assert sent == {"include_obfuscation": False, "include_usage": True}
    assert answer.body == b"".join(event for event in upstream.sent if b'"choices": []' not in event)
    assert events_of(answer.body)[-1] == "[DONE]"
    found = row(gateway.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"]) == (11, NUM_EVENTS)
    assert (found["usage_estimated"], found["is_stream"], found["status"]) == (0, 1, 200)
    assert found["usd"] == pytest.approx((11 * 0.1 + NUM_EVENTS * 0.4) / 1e6)


def test_a_row_accounts_for_cached_tokens_and_time(gateway: Served) -> None:
    answer = ask(gateway.base_url, model="large")
    found = row(gateway.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (11, 7, 4)
    assert found["usd"] == pytest.approx((11 * 1.0 + 7 * 4.0) / 1e6)
    assert 0 < found["first_byte_s"] <= found["latency_s"] < 5
    assert found["attempts"] == 1
    assert found["text"] is None, "no prompt is kept unless it is asked for"


def test_an_answer_without_usage_is_estimated_and_says_so(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["small"] = "bare"
    answer = ask(gateway.base_url, messages=EASY)
    assert answer.headers["x-turnout-usage-estimated"] == "true"
    found = row(gateway.ledger, answer.decision_id)
    assert (found["usage_estimated"], found["input_tokens"], found["output_tokens"]) == (1, 3, 10)


def test_a_candidate_sets_its_effort_and_its_budget_and_nothing_else_does(
    gateway: Served, upstream: Upstream
) -> None:
    ask(gateway.base_url, model="large[effort=high,max_output_tokens=500]")
    sent = upstream.last.json
    assert (sent["model"], sent["reasoning_effort"], sent["max_completion_tokens"]) == ("large", "high", 500)
    ask(gateway.base_url, model="large")
    assert sorted(upstream.last.json) == ["messages", "model"]
    ask(gateway.base_url, model="large[effort=high,max_output_tokens=500]", max_tokens=20)
    assert upstream.last.json["max_tokens"] == 20, "the client's own limit is the smaller one"
    assert "max_completion_tokens" not in upstream.last.json
    ask(gateway.base_url, model="large[effort=high,max_output_tokens=500]", max_tokens=9000)
    assert upstream.last.json["max_tokens"] == 500


def test_a_limit_that_is_no_number_is_left_to_the_upstream(gateway: Served, upstream: Upstream) -> None:
    ask(gateway.base_url, model="large[effort=high,max_output_tokens=500]", max_tokens="many")
    assert upstream.last.json["max_tokens"] == "many"
    assert upstream.last.json["max_completion_tokens"] == 500


def test_an_adapter_is_part_of_the_upstream_name(gateway: Served, upstream: Upstream) -> None:
    ask(gateway.base_url, model="small[adapter=legal]")
    assert upstream.last.json["model"] == "small:legal"


def test_unknown_fields_reach_the_upstream_byte_for_byte(gateway: Served, upstream: Upstream) -> None:
    members = [
        b'"x_number": 1.50e+3',
        b'"x_big": 12345678901234567890123',
        b'"x_text": "caf\\u00e9 \\/ \\n"',
        b'"x_deep": { "a" : [ 1 , {"b":null} ] }',
        b'"temperature":0.70',
        b'"messages": [ {"role":"user" ,"content":"an easy one", "cache_control": {"type": "ephemeral"}} ]',
    ]
    ask(gateway.base_url, b'{"model": "turnout/auto", ' + b", ".join(members) + b"}")
    for member in members:
        _, _, value = member.partition(b":")
        assert value.strip() in upstream.last.body
    assert json.loads(upstream.last.body)["model"] == "small"


def test_the_clients_key_stays_here(gateway: Served, upstream: Upstream) -> None:
    ask(gateway.base_url, headers={"authorization": "Bearer secret"})
    assert "authorization" not in upstream.last.headers


def test_a_long_prompt_is_routed_and_served(gateway: Served, upstream: Upstream) -> None:
    text = "easy word " * 100_000
    answer = ask(gateway.base_url, messages=[{"role": "user", "content": text}])
    assert answer.status == 200
    assert upstream.last.json["messages"][0]["content"] == text
    assert row(gateway.ledger, answer.decision_id)["chosen"] == "small"
