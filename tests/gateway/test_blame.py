"""An upstream that lets the gateway in no more fails as one that is down does, and its words stay inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, Told, told_server, whole
from tests.gateway.upstream import completion
from turnout.gateway.config import BreakerSettings
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.providers.blame import blame

EASY: Any = [{"role": "user", "content": "an easy one"}]
KEY = "Incorrect API key provided: sk-UPST****"


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@contextmanager
def stand(told: Told, ledger: Path, **sections: Any) -> Iterator[Ready]:
    plain = make_config(told.base_url, ledger)
    with running(msgspec.structs.replace(plain, **sections), deployment=make_deployment()) as ready:
        yield ready


def answers(told: Told, status: int, error: Any) -> None:
    """Have `small` refuse, and `large` answer."""

    def say(asked: Asked) -> Say:
        if "model" in asked.json and asked.json["model"] == "large":
            return Say([completion("large")])
        return whole({"error": error} if not isinstance(error, bytes) else {"detail": "Not Found"}, status)

    told.say = say


CASES = [
    (401, {"message": KEY, "code": "invalid_api_key"}, "upstream_refused"),
    (402, {"message": "Insufficient credits", "code": 402}, "upstream_refused"),
    (403, {"message": "Project does not have access", "type": "permission_error"}, "upstream_refused"),
    (400, {"message": KEY, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}, None),
    (404, {"message": "The model `small` does not exist", "code": "model_not_found"}, "upstream_no_model"),
    (404, {"type": "not_found_error", "message": "model: small"}, "upstream_no_model"),
    (404, "model 'small' not found, try pulling it first", "upstream_no_model"),
    (404, b"", "upstream_no_model"),
    (408, {"message": "took too long"}, "upstream_timeout"),
]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("status", "error", "code"), CASES)
def test_what_is_wrong_between_gateway_and_upstream_falls_back(
    told: Told, tmp_path: Path, status: int, error: Any, code: str | None, *, is_stream: bool
) -> None:
    answers(told, status, error)
    with stand(told, tmp_path / "l.sqlite") as ready:
        other = ask(ready.base_url, messages=EASY, stream=is_stream)
        named = ask(ready.base_url, messages=EASY, model="small", stream=is_stream)
    code = code or "upstream_refused"
    assert (other.status, other.headers["x-turnout-model"]) == (200, "large")
    assert row(tmp_path / "l.sqlite", other.decision_id)["faults"] == f"small: {code}"
    assert (named.status, named.error["code"]) == (504 if status == 408 else 502, code)
    assert f"status {status}" in named.error["message"]
    check_advice(named.error["message"])
    assert b"sk-" not in named.body


def test_a_revoked_key_opens_the_breaker(told: Told, tmp_path: Path) -> None:
    answers(told, 401, {"message": KEY})
    with stand(told, tmp_path / "l.sqlite", breakers=BreakerSettings(failures=2)) as ready:
        for _ in range(3):
            assert ask(ready.base_url, messages=EASY).status == 200
        found = call(ready.base_url.removesuffix("/v1"), "/admin/breakers").json["breakers"]
    assert {breaker["model"]: breaker["state"] for breaker in found}["small"] == "open"


def test_the_log_has_the_word_and_not_the_message(
    told: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers(told, 401, {"message": KEY, "code": "invalid_api_key"})
    with caplog.at_level(logging.WARNING), stand(told, tmp_path / "l.sqlite") as ready:
        ask(ready.base_url, messages=EASY)
    assert "the upstream 'main' answered 401 (invalid_api_key)" in caplog.text
    assert "sk-" not in caplog.text


def test_a_kept_response_shows_no_words_of_our_key_either(told: Told, tmp_path: Path) -> None:
    made: Any = {"id": "resp_1", "object": "response", "output": [], "usage": None}
    told.say = lambda asked: whole(made if asked.method == "POST" else {"error": {"message": KEY}}, 200)
    with stand(told, tmp_path / "l.sqlite") as ready:
        body = json.dumps({"model": "small", "input": "hi"}).encode()
        assert call(ready.base_url, "/responses", method="POST", body=body).status == 200
        told.say = lambda _: whole({"error": {"message": KEY}}, 401)
        answer: Answer = call(ready.base_url, "/responses/resp_1")
    assert (answer.status, answer.error["code"]) == (502, "upstream_refused")
    assert b"sk-" not in answer.body


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "max_tokens is too large"}),
        (403, {"message": "Your input was flagged", "code": 403}),
        (403, {"message": "blocked", "code": "content_policy_violation"}),
        (404, {"message": "No such File object: file-1", "param": "id"}),
        (404, {"message": "Previous response with id 'resp_1' not found."}),
        (409, {"message": KEY}),
        (422, {"message": "model"}),
    ],
)
def test_what_is_wrong_with_the_request_is_the_clients(status: int, error: dict[str, Any]) -> None:
    assert blame(status, json.dumps({"error": error}).encode()) == "request"
