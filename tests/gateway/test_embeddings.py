"""OpenAI's client asks for embeddings through a gateway; nothing is routed, and bytes stay as they are."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.anthropic_upstream import anthropic_server
from tests.gateway.client import Answer, call, row
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, Told, told_server, whole
from turnout.core.errors import ConfigError
from turnout.gateway.build import build_all
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import ModelSettings
from turnout.gateway.settings_providers import AnthropicSettings, OpenAISettings

VECTOR = [0.25, -1.5, 3.0]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("embeddings") / "ledger.sqlite"
    plain = make_config(told.base_url, Path(ledger))
    models = {
        "embed": ModelSettings(model="text-embedding-x", input_usd_per_mtok=0.02),
        "free": ModelSettings(),
        "elsewhere": ModelSettings(provider="chat-only"),
        "claude": ModelSettings(provider="claude"),
    }
    with anthropic_server() as claude:
        providers = {
            **plain.providers,
            "chat-only": OpenAISettings(base_url=told.base_url, apis=["chat"]),
            "claude": AnthropicSettings(base_url=claude.base_url),
        }
        config = msgspec.structs.replace(plain, providers=providers, default_provider="main", models=models)
        with running(config.check(), deployment=make_deployment()) as ready:
            yield Served(ready.base_url, ledger)


@pytest.fixture
def client(served: Served, told: Told) -> Iterator[openai.OpenAI]:
    told.seen.clear()
    told.say = embed
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def embed(asked: Asked) -> Say:
    """Answer as OpenAI does: base64 where the client asks for it."""
    given = asked.json["input"]
    texts = given if isinstance(given, list) else [given]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector: Any = packed if asked.json.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(len(texts))]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return whole({"object": "list", "data": data, "model": asked.json["model"], "usage": usage})


def post(served: Served, body: bytes) -> Answer:
    return call(served.base_url, "/embeddings", method="POST", body=body)


@pytest.mark.parametrize("form", ["base64", "float", None])
@pytest.mark.parametrize("given", ["hello", ["hello", "world"], [1, 2, 3], [[1, 2], [3]]])
def test_the_client_gets_its_vectors(client: openai.OpenAI, told: Told, given: Any, form: Any) -> None:
    more: Any = {} if form is None else {"encoding_format": form}
    got = client.embeddings.create(model="embed", input=given, dimensions=3, **more)
    assert told.last.path == "/v1/embeddings"
    sent = told.last.json
    assert (sent["model"], sent["input"], sent["dimensions"]) == ("text-embedding-x", given, 3)
    assert sent["encoding_format"] == (form or "base64"), "the client's own default"
    if form != "base64":
        assert got.data[0].embedding == VECTOR
    assert got.usage.prompt_tokens == 5


def test_bytes_stay_as_they_are(served: Served, client: openai.OpenAI, told: Told) -> None:
    reply = b'{"data": [ {"embedding": [1.50, 2e-3]} ],  "vendor": 1.0}'
    told.say = lambda _: Say([reply])
    answer = post(served, b'{"model":"embed", "input": [ "a" ,"b"],"x": 1.50e+3}')
    assert answer.body == reply
    assert told.last.body == b'{"model":"text-embedding-x","input":[ "a" ,"b"],"x":1.50e+3}'


def test_a_row_accounts_for_what_went_in(served: Served, client: openai.OpenAI, told: Told) -> None:
    raw = client.embeddings.with_raw_response.create(model="embed", input="hello")
    found = row(served.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (5, 0, 0)
    assert found["usd"] == pytest.approx(5 * 0.02 / 1e6)
    assert (found["served"], found["reason"], found["text"]) == ("embed", "named", None)
    told.say = lambda _: whole({"data": []})
    answer = post(served, json.dumps({"model": "free", "input": ["12345", [1, 2, 3]]}).encode())
    found = row(served.ledger, answer.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (5, 0, 1)
    assert found["usd"] is None


def test_a_model_outside_the_pool_is_listed_and_never_chosen(client: openai.OpenAI) -> None:
    assert {"turnout/auto", "small", "embed", "free"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("embed").owned_by == "main"


def test_errors_pass(client: openai.OpenAI, told: Told) -> None:
    told.say = lambda _: whole({"error": {"message": "no", "type": "t", "param": "input", "code": "c"}}, 400)
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="embed", input="x")
    assert (caught.value.code, caught.value.param) == ("c", "input")
    with pytest.raises(openai.NotFoundError, match="did you mean 'embed'"):
        client.embeddings.create(model="embedd", input="x")


def test_the_alias_and_who_has_no_embeddings_are_refused(client: openai.OpenAI, told: Told) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="turnout/auto", input="x")
    assert caught.value.code == "not_routed"
    for model in ("elsewhere", "claude"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=model, input="x")
        assert caught.value.code == "not_supported"
    assert told.seen == []


@pytest.mark.parametrize(
    "body", [b'{"model":"embed"}', b'{"model":"embed","input":5}', b'{"model":"embed","input":[[1.5]]}', b"{"]
)
def test_a_wrong_body_is_a_400_that_names_the_field(served: Served, told: Told, body: bytes) -> None:
    told.seen.clear()
    answer = post(served, body)
    assert (answer.status, told.seen) == (400, [])
    assert answer.error["param"] in ("input", None)


def test_a_name_that_is_taken_stops_the_start(told: Told, tmp_path: Path) -> None:
    plain = make_config(told.base_url, tmp_path / "ledger.sqlite")
    config = msgspec.structs.replace(plain, models={"turnout/auto": ModelSettings()})
    with pytest.raises(ConfigError, match="taken"):
        build_all(config, deployment=make_deployment())
