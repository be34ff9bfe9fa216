"""OpenAI's client has a conversation compacted, and its tokens counted, by who serves the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.anthropic_upstream import anthropic_server
from tests.gateway.client import call, row
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import hashed
from tests.gateway.told import Asked, Say, Told, told_server, whole
from turnout.gateway.config import Config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import AnthropicSettings, AzureSettings, OpenAISettings
from turnout.gateway.settings_rules import RuleSettings

EASY, HARD = "an easy one", "prove it"
COMPACT, COUNT = "/responses/compact", "/responses/input_tokens"


def say(name: str, asked: Asked) -> Say:
    """Do what OpenAI's API does, as far as these tests go."""
    path = asked.path.partition("?")[0]
    if path.endswith("/input_tokens"):
        return whole({"object": "response.input_tokens", "input_tokens": 21 if name == "first" else 22})
    usage: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    if path.endswith("/compact"):
        sealed = {"id": f"cmp_{name}", "type": "compaction", "encrypted_content": f"sealed by {name}"}
        made = {"id": f"resp_{name}", "object": "response.compaction", "created_at": 1, "output": [sealed]}
        return whole({**made, "usage": usage})
    made = {"id": f"resp_{name}_2", "object": "response", "created_at": 1, "model": name, "output": []}
    return whole({**made, "status": "completed", "usage": usage})


@dataclass
class Stand:
    """A gateway before OpenAI's API, Azure's, a server without these paths, and Anthropic's."""

    base_url: str
    ledger: Path
    first: Told
    second: Told
    bare: Told

    def client(self, key: str = "one") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=f"sk-{key}", max_retries=0, timeout=20)

    def count(self, body: bytes | dict[str, Any], key: str = "one") -> Any:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"authorization": f"Bearer sk-{key}"}
        return call(self.base_url, COUNT, method="POST", body=sent, headers=headers)


def _config(folder: Path, first: Told, second: Told, bare: Told, claude: str) -> Config:
    plain = make_config("http://x", folder / "ledger.sqlite")
    return msgspec.structs.replace(
        plain,
        providers={
            "first": OpenAISettings(base_url=first.base_url),
            "second": AzureSettings(base_url=second.base_url.removesuffix("/v1")),
            "bare": OpenAISettings(base_url=bare.base_url),
            "chat": OpenAISettings(base_url=first.base_url, apis=["chat"]),
            "claude": AnthropicSettings(base_url=claude),
        },
        default_provider="first",
        candidates={"large": CandidateSettings(provider="second", model="big")},
        models={
            "bare": ModelSettings(provider="bare", input_usd_per_mtok=1.0),
            "bare, then first": ModelSettings(provider="bare", fallbacks=["small"], input_usd_per_mtok=1.0),
            "chatty": ModelSettings(provider="chat", input_usd_per_mtok=1.0),
            "claude": ModelSettings(provider="claude", input_usd_per_mtok=1.0),
        },
        auth=AuthSettings(path=str(folder / "keys.sqlite")),
        keys={
            "one": KeySettings(sha256=hashed("sk-one"), budget_usd=5.0, budget_period="total"),
            "two": KeySettings(sha256=hashed("sk-two"), models=["bare"]),
        },
        rules=[RuleSettings(name="no mail", redact=["EMAIL_ADDRESS"])],
    ).check()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("compact")
    with told_server() as first, told_server() as second, told_server() as bare, anthropic_server() as claude:
        first.say, second.say = lambda asked: say("first", asked), lambda asked: say("second", asked)
        config = _config(folder, first, second, bare, claude.base_url)
        with running(config, deployment=make_deployment((SMALL, LARGE))) as ready:
            yield Stand(ready.base_url, folder / "ledger.sqlite", first, second, bare)


@pytest.fixture(autouse=True)
def _anew(stand: Stand) -> None:
    for one in (stand.first, stand.second, stand.bare):
        one.seen.clear()
    stand.bare.say = lambda _: whole({"detail": "Not Found"}, status=404)


def test_a_conversation_is_compacted_where_its_model_is_served_and_charged(stand: Stand) -> None:
    with stand.client() as client:
        raw = client.responses.with_raw_response.compact(
            model="large", input=[{"role": "user", "content": "mail a@example.com"}], instructions="brief"
        )
        made = raw.parse()
        assert (made.id, made.output[0].type) == ("resp_second", "compaction")
        asked = stand.second.last
        assert asked.path.startswith("/openai/responses/compact?api-version=")
        assert (asked.json["model"], asked.json["instructions"]) == ("big", "brief")
        assert "example.com" not in asked.body.decode(), "a rule takes it out"
        found = row(stand.ledger, raw.headers["x-turnout-decision-id"])
        assert (found["served"], found["input_tokens"], found["output_tokens"]) == ("large", 1000, 100)
        assert found["usd"] == pytest.approx((1000 * 1.0 + 100 * 4.0) / 1e6)
        assert (found["key"], found["usage_estimated"]) == ("one", 0)


def test_what_was_sealed_is_gone_on_from_where_it_was_sealed(stand: Stand) -> None:
    """The router would send the next turn elsewhere: what is sealed can be read by its maker alone."""
    with stand.client() as client:
        made = client.responses.compact(model="turnout/auto", input=EASY)
        assert (made.id, stand.first.last.json["model"]) == ("resp_first", "small")
        sealed: Any = made.output[0].model_dump(exclude_none=True)
        turns: Any = [sealed, {"role": "user", "content": HARD}]
        assert client.responses.create(model="turnout/auto", input=HARD).id == "resp_second_2"
        assert client.responses.create(model="turnout/auto", input=turns).id == "resp_first_2"
        again = client.responses.compact(model="turnout/auto", input=turns)
        assert again.id == "resp_first"


def test_tokens_are_counted_where_the_model_is_served_and_cost_nothing(stand: Stand) -> None:
    with stand.client() as client:
        mail = "mail a@example.com"
        told = client.responses.input_tokens.count(model="large", input=mail, extra_headers={"x-a": "b"})
        assert told.input_tokens == 22
        assert stand.second.last.path.startswith("/openai/responses/input_tokens?api-version=")
        assert stand.second.last.json["model"] == "big"
        assert "example.com" not in stand.second.last.body.decode()
        raw = client.responses.input_tokens.with_raw_response.count(model="turnout/auto", input=EASY)
        assert raw.headers["x-turnout-model"] == "small"
        assert raw.parse().input_tokens == 21
        assert stand.first.last.json == {"model": "small", "input": EASY}
        # As for a response, no model is the router's.
        assert client.responses.input_tokens.count(input=HARD).input_tokens == 22
        made = client.responses.create(model="small", input=EASY)
        told = client.responses.input_tokens.count(
            model="turnout/auto", previous_response_id=made.id, input=HARD
        )
        assert told.input_tokens == 21, "it is kept at the first"
    assert [r["requested_model"] for r in _rows(stand)].count("turnout/auto") < 5, "counts are in no ledger"


def _rows(stand: Stand) -> list[dict[str, Any]]:
    from tests.gateway.client import rows

    return rows(stand.ledger)


@pytest.mark.parametrize("model", ["bare", "chatty", "claude"])
def test_who_cannot_is_refused_in_the_words_of_the_api(stand: Stand, model: str) -> None:
    with stand.client() as client:
        for ask in (
            lambda: client.responses.compact(model=model, input=EASY),
            lambda: client.responses.input_tokens.count(model=model, input=EASY),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                ask()
            assert (caught.value.code, caught.value.param) == ("not_supported", "model")
            assert "does not serve /v1/responses/" in str(caught.value)
    root = stand.base_url.removesuffix("/v1")
    assert '"open"' not in call(root, "/v1/models", headers={"authorization": "Bearer sk-one"}).body.decode()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, {"message": "Invalid URL (POST /v1/responses/compact)", "type": "invalid_request_error"}),
        (404, {"message": "Not Found", "type": "NotFoundError", "code": 404}),
        (405, {"message": "Method Not Allowed"}),
        (501, {"message": "not implemented"}),
    ],
)
def test_a_server_without_the_path_is_passed_over(stand: Stand, status: int, error: dict[str, Any]) -> None:
    stand.bare.say = lambda _: whole({"error": error}, status=status)
    with stand.client() as client:
        made = client.responses.with_raw_response.compact(model="bare, then first", input=EASY)
        assert made.headers["x-turnout-model"] == "small"
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.input_tokens.count(model="bare", input=EASY)
        assert caught.value.code == "not_supported"


def test_what_is_not_found_by_name_is_the_clients_to_know(stand: Stand) -> None:
    error = {"message": "gone", "code": "previous_response_not_found", "param": "previous_response_id"}
    stand.bare.say = lambda _: whole({"error": error}, status=404)
    with stand.client() as client:
        for ask in (client.responses.compact, client.responses.input_tokens.count):
            with pytest.raises(openai.NotFoundError) as caught:
                ask(model="bare", previous_response_id="resp_x")
            assert caught.value.code == "previous_response_not_found"


def test_a_count_has_the_keys_of_the_gateway_and_its_errors(stand: Stand) -> None:
    assert stand.count({"input": "x", "model": "small"}, key="nobody").status == 401
    refused = stand.count({"input": "x", "model": "small"}, key="two")
    assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    assert stand.count({"input": "x", "model": "nobody"}).error["code"] == "model_not_found"
    assert stand.count(b"{").status == 400
    assert stand.count({"input": 5, "model": "small"}).error["param"] == "input"
    assert (stand.first.seen, stand.second.seen, stand.bare.seen) == ([], [], [])
