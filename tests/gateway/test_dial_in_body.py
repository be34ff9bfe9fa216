"""A dial in `metadata.turnout` counts, comes after a header, and goes no further than the gateway."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.gateway.client import ask, call, row
from tests.gateway.conftest import Served
from tests.gateway.upstream import Upstream

THRIFTY: Any = {"usd_per_quality": 1e-9}
LARGEST = "large[effort=high,max_output_tokens=500]"


@pytest.mark.parametrize("spelt", [lambda dial: dial, json.dumps])
def test_the_body_sets_the_dial(gateway: Served, upstream: Upstream, spelt: Any) -> None:
    assert ask(gateway.base_url).headers["x-turnout-model"] == LARGEST
    answer = ask(gateway.base_url, metadata={"turnout": spelt(THRIFTY)})
    assert answer.headers["x-turnout-model"] == "small"
    assert row(gateway.ledger, answer.decision_id)["goal"].startswith("1e-09 usd")
    assert "metadata" not in upstream.last.json


def test_a_header_comes_first(gateway: Served, upstream: Upstream) -> None:
    headers = {"x-turnout-usd-per-quality": "1e9"}
    answer = ask(gateway.base_url, headers=headers, metadata={"turnout": THRIFTY})
    assert answer.headers["x-turnout-model"] == LARGEST
    assert "metadata" not in upstream.last.json, "taken out all the same"


def test_other_metadata_stay_as_they_are(gateway: Served, upstream: Upstream) -> None:
    body = b'{"model":"turnout/auto","messages":[{"role":"user","content":"x"}],"metadata":'
    ask(gateway.base_url, body + b'{"a" : "caf\\u00e9", "turnout":{"usd_per_quality":1e-9},"b":1.50}}')
    assert b'"metadata":{"a":"caf\\u00e9","b":1.50}' in upstream.last.body
    ask(gateway.base_url, body + b'{"a":"b","\\u0074urnout":{"usd_per_quality":1e-9}}}')
    assert b'"metadata":{"a":"b"}' in upstream.last.body, "a name that is spelt otherwise is the same"
    for metadata in (
        b'{"a" : "caf\\u00e9"}',
        b'{ "team" : "turnout" }',
        b'"turnout"',
        b'["turnout"]',
        b"null",
    ):
        ask(gateway.base_url, body + metadata + b"}")
        assert b'"metadata":' + metadata in upstream.last.body


def test_the_client_can_say_it(client: openai.OpenAI, upstream: Upstream) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="turnout/auto",
        messages=[{"role": "user", "content": "x"}],
        metadata={"turnout": json.dumps(THRIFTY)},
    )
    assert raw.headers["x-turnout-model"] == "small"


@pytest.mark.parametrize("path", ["/messages", "/responses"])
def test_it_counts_in_every_api(gateway: Served, upstream: Upstream, path: str) -> None:
    said: Any = {"messages": [{"role": "user", "content": "x"}]} if path == "/messages" else {"input": "x"}
    metadata = {"turnout": THRIFTY, "user_id": "u"}
    body = {"model": "turnout/auto", "max_tokens": 9, "metadata": metadata, **said}
    answer = call(gateway.base_url, path, method="POST", body=json.dumps(body).encode())
    found = row(gateway.ledger, answer.decision_id)
    assert (found["chosen"], found["goal"][:9]) == ("small", "1e-09 usd")


@pytest.mark.parametrize(
    ("dial", "words"),
    [
        ({"quality_flor": 0.9}, "did you mean 'quality_floor'"),
        ({"quality_floor": "much"}, "a number"),
        ({"quality_floor": 9}, "within its range"),
        ({"quality_floor": 0.9, "usd_per_1k": 1}, "keep one"),
        ([], "an object"),
        ("oops", "an object"),
        ({"quality_floor": None}, "a number"),
        ({"quality_floor": True}, "a number"),
    ],
)
def test_a_wrong_dial_is_refused(gateway: Served, upstream: Upstream, dial: Any, words: str) -> None:
    answer = ask(gateway.base_url, metadata={"turnout": dial})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (
        400,
        "metadata.turnout",
        "bad_metadata",
    )
    assert words in answer.error["message"]
    assert upstream.seen == []
    assert ask(gateway.base_url, metadata={"turnout": {}}).status == 200
