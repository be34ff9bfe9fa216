"""Whatever a client sends, it gets an OpenAI-shaped error that says what was wrong, and the ledger a row."""

from __future__ import annotations

import gzip
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.gateway.client import CHAT, ask, call, check_advice, row
from tests.gateway.conftest import Served
from tests.gateway.upstream import Upstream

OK = b'{"model":"small","messages":[{"role":"user","content":"x"}]}'

BAD = {
    "empty": (b"", "empty_body", None),
    "blank": (b" \n ", "empty_body", None),
    "invalid UTF-8": (b'{"model":"small","x":"\xff\xfe"}', "invalid_utf8", None),
    "not JSON": (b"model=small", "invalid_json", None),
    "cut short": (OK[:-3], "invalid_json", None),
    "NaN": (b'{"model": NaN}', "invalid_json", None),
    "a list": (b"[]", "invalid_json", None),
    "nested too deeply": (
        b'{"model":"small","x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
        "invalid_json",
        None,
    ),
    "no model": (b'{"messages":[{"role":"user","content":"x"}]}', "missing_required_parameter", "model"),
    "model is a number": (b'{"model":3,"messages":[]}', "invalid_type", "model"),
    "model is empty": (b'{"model":"","messages":[]}', "invalid_value", "model"),
    "no messages": (b'{"model":"small"}', "missing_required_parameter", "messages"),
    "messages is empty": (b'{"model":"small","messages":[]}', "invalid_value", "messages"),
    "messages is a string": (b'{"model":"small","messages":"hi"}', "invalid_type", "messages"),
    "a message without role": (
        b'{"model":"small","messages":[{"content":"x"}]}',
        "invalid_type",
        "messages[0]",
    ),
    "content is a number": (
        b'{"model":"small","messages":[{"role":"user","content":1}]}',
        "invalid_type",
        "messages[0].content",
    ),
    "half a surrogate": (
        b'{"model":"small","messages":[{"role":"user","content":"\\ud800"}]}',
        "invalid_json",
        None,
    ),
    "stream is a word": (OK[:-1] + b',"stream":"yes"}', "invalid_type", "stream"),
    "stream_options is a list": (OK[:-1] + b',"stream_options":[1]}', "invalid_type", "stream_options"),
}


SAID = {
    "cut short": f"the request body is malformed JSON; allowed: a JSON object with the fields 'model' and "
    f"'messages'; got: 'Input data was truncated (byte {len(OK) - 3})'; check quotes, commas and "
    "brackets there",
    "not JSON": "got: 'JSON is malformed: invalid character (byte 0)'",
    "invalid UTF-8": "is not UTF-8 (byte 22); allowed: UTF-8; got: '0xff'; encode the body as UTF-8",
    "a list": "the request body is no object; allowed: a JSON object",
    "model is a number": "the field 'model' is wrong; allowed: a string; got: '3'; send 'model' as a string",
    "content is a number": "allowed: a string or a list or null; got: 'a whole number'; send for example [",
    "stream is a word": "allowed: true or false; got: '\"yes\"'",
}


@pytest.mark.parametrize("name", SAID)
def test_the_sentence_is_complete(gateway: Served, name: str) -> None:
    assert SAID[name] in ask(gateway.base_url, BAD[name][0]).error["message"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(gateway: Served, name: str) -> None:
    body, code, param = BAD[name]
    answer = ask(gateway.base_url, body)
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["content-type"] == "application/json"
    check_advice(answer.error["message"])
    found = row(gateway.ledger, answer.decision_id)
    assert (found["status"], found["error"], found["chosen"]) == (400, code, None)


@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/responses", "/embeddings", "/route"])
def test_a_packed_body_is_a_415_that_says_so(gateway: Served, upstream: Upstream, path: str) -> None:
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "input": "x",
    }
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    packed = gzip.compress(json.dumps(body).encode())
    answer = call(gateway.base_url, path, method="POST", body=packed, headers=headers)
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
    check_advice(answer.error["message"])
    assert "packed" in answer.error["message"]
    assert upstream.seen == []
    plain = call(
        gateway.base_url,
        path,
        method="POST",
        body=json.dumps(body).encode(),
        headers={"content-encoding": "identity"},
    )
    assert plain.status == 200 or plain.error["code"] == "upstream_no_model", plain.body


def test_a_body_over_the_limit_is_a_413_that_names_the_setting(gateway: Served) -> None:
    answer = ask(gateway.base_url, b'{"model":"' + b"x" * 4_100_000 + b'"}')
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "server.max_body_mb" in answer.error["message"]
    assert "got: '4.1 MB or more'" in answer.error["message"]
    check_advice(answer.error["message"])
    assert row(gateway.ledger, answer.decision_id)["status"] == 413
    assert ask(gateway.base_url, b" " * 3_900_000 + OK).status == 200


@pytest.mark.parametrize(("path", "method", "allowed"), [(CHAT, "GET", "POST"), ("/models", "POST", "GET")])
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    gateway: Served, path: str, method: str, allowed: str
) -> None:
    answer = call(gateway.base_url, path, method=method, body=OK if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed
    check_advice(answer.error["message"])


@pytest.mark.parametrize("path", ["/completions", "/chat/completions/", "/chat", "/../etc/passwd", "/%ff"])
def test_an_unknown_path_is_a_404_that_lists_the_known_ones(gateway: Served, path: str) -> None:
    answer = call(gateway.base_url, path, method="POST", body=OK)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert "/v1/chat/completions" in answer.error["message"]


@pytest.mark.parametrize("path", ["/chat/completions/", "//chat/completions", "/chat//completions/"])
def test_a_slash_too_many_is_a_404_that_says_so(gateway: Served, path: str) -> None:
    answer = call(gateway.base_url, path, method="POST", body=OK)
    assert answer.error["message"].endswith("write /v1/chat/completions, with single slashes")


def test_a_need_that_nobody_meets_is_a_422_that_says_why_for_each(gateway: Served) -> None:
    content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    # Two candidates state what they can do; the other two state nothing and are never refused for it.
    assert ask(gateway.base_url, messages=[{"role": "user", "content": content}]).status == 200
    huge = [{"role": "user", "content": "word " * 400_000}]
    answer = ask(gateway.base_url, messages=huge)
    assert (answer.status, answer.error["code"]) == (422, "no_feasible_candidate")
    assert answer.error["message"].count("input tokens") == 4
    assert row(gateway.ledger, answer.decision_id)["error"] == "no_feasible_candidate"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-turnout-quality-floor", "high"),
        ("x-turnout-quality-floor", "-1"),
        ("x-turnout-quality-floor", "nan"),
        ("x-turnout-quality-floor", "infinity"),
        ("x-turnout-quality-floor", "0_1"),
        ("x-turnout-usd-per-1k", "1_0"),
        ("x-turnout-usd-per-1k", "0"),
        ("x-turnout-usd-per-quality", ""),
    ],
)
def test_a_bad_dial_is_a_400_that_names_the_header(gateway: Served, header: str, value: str) -> None:
    answer = ask(gateway.base_url, headers={header: value})
    assert (answer.status, answer.error["param"]) == (400, header)
    assert header in answer.error["message"]
    check_advice(answer.error["message"])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("x-turnout-quality-flor", "did you mean 'x-turnout-quality-floor'"),
        ("X-Turnout-Usd-Per-1000", "did you mean 'x-turnout-usd-per-1k'"),
        ("x-turnout-", "x-turnout-usd-per-quality"),
    ],
)
def test_an_unknown_header_of_ours_is_a_400_that_names_the_known_ones(
    gateway: Served, header: str, words: str
) -> None:
    answer = ask(gateway.base_url, headers={header: "0.9"})
    assert (answer.status, answer.error["code"]) == (400, "unknown_header")
    assert answer.error["param"] == header.lower()
    assert words in answer.error["message"]
    check_advice(answer.error["message"])
    assert row(gateway.ledger, answer.decision_id)["error"] == "unknown_header"
    assert ask(gateway.base_url, headers={"x-other-quality-flor": "0.9"}).status == 200


def test_two_dials_at_once_are_refused(gateway: Served) -> None:
    answer = ask(gateway.base_url, headers={"x-turnout-usd-per-1k": "1", "x-turnout-quality-floor": "1"})
    assert (answer.status, answer.error["code"]) == (400, "bad_header")
    assert "x-turnout-quality-floor and x-turnout-usd-per-1k" in answer.error["message"]
    check_advice(answer.error["message"])


def test_a_goal_that_was_not_calibrated_is_refused_by_name(gateway: Served) -> None:
    answer = ask(gateway.base_url, headers={"x-turnout-quality-floor": "0.9"})
    assert (answer.status, answer.error["param"]) == (400, "x-turnout-quality-floor")
    assert "calibrat" in answer.error["message"]


def test_the_dial_moves_the_choice(gateway: Served) -> None:
    cheap = ask(gateway.base_url, headers={"x-turnout-usd-per-quality": "0.00001"})
    dear = ask(gateway.base_url, headers={"x-turnout-usd-per-quality": "1000"})
    assert cheap.headers["x-turnout-model"].startswith("small")
    assert dear.headers["x-turnout-model"].startswith("large")
    found = row(gateway.ledger, cheap.decision_id)
    assert found["price"] == pytest.approx(100_000)
    assert found["goal"] == "1e-05 usd for one more right answer"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(
    st.sampled_from(
        ["model", "messages", "stream", "stream_options", "tools", "response_format", "modalities"]
    ),
    json_values,
    max_size=7,
)


@hypothesis.given(body=st.binary(max_size=60) | fields)
@hypothesis.settings(max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_no_body_is_ever_a_server_error(gateway: Served, body: bytes | dict) -> None:
    sent = body if isinstance(body, bytes) else json.dumps({"model": "small", **body}).encode()
    answer = ask(gateway.base_url, sent)
    assert answer.status < 500, (sent, answer.body)


@pytest.mark.parametrize("text", ["\\ud800", "x \\uDC00 y", "\\ud83d\\ud83d\\ude00"])
def test_half_a_character_is_called_that(gateway: Served, text: str) -> None:
    body = '{"model": "small", "messages": [{"role": "user", "content": "' + text + '"}]}'
    message = ask(gateway.base_url, body.encode()).error["message"]
    assert "holds half of a surrogate pair" in message
    assert f"(byte {body.index(chr(92))}" in message
    whole = body.replace(text, "\\ud83d\\ude00")
    assert ask(gateway.base_url, whole.encode()).status == 200
