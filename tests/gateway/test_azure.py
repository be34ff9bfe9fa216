"""What goes to Azure is what OpenAI's own client for Azure sends there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.chat_told import CHUNKS, SAID, completion
from tests.gateway.client import ask
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Told, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import AzureSettings

VERSION = "2025-04-01-preview"
ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with told_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("azure") / "ledger.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_KEY", "secret")
        azure = AzureSettings(
            base_url=told.base_url.removesuffix("/v1"), api_key_env="AZURE_KEY", api_version=VERSION
        )
        config = msgspec.structs.replace(
            make_config("http://x", Path(ledger)),
            providers={"azure": azure},
            candidates={"small": CandidateSettings(model="my deployment")},
            models={"embed": ModelSettings(model="vectors")},
        ).check()
        with running(config, deployment=make_deployment()) as ready:
            yield Served(ready.base_url, ledger)


def official(told: Told) -> openai.AzureOpenAI:
    root = told.base_url.removesuffix("/v1")
    return openai.AzureOpenAI(azure_endpoint=root, api_key="secret", api_version=VERSION, max_retries=0)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_chat_request_is_sent_as_the_official_client_sends_it(
    served: Served, told: Told, is_stream: bool
) -> None:
    told.say = lambda _: stream(sse(*CHUNKS)) if is_stream else whole(completion(SAID, "tool_calls"))
    answer = ask(served.base_url, model="small", messages=ASK, stream=is_stream, temperature=0.5)
    ours = told.last
    with official(told) as client:
        client.chat.completions.create(model="my deployment", messages=ASK, stream=is_stream, temperature=0.5)
    theirs = told.last
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.path.endswith(f"/openai/deployments/my%20deployment/chat/completions?api-version={VERSION}")
    assert ours.headers["api-key"] == theirs.headers["api-key"] == "secret"
    assert "authorization" not in ours.headers
    sent = ours.json
    sent.pop("stream_options", None)
    assert sent == {"stream": False, **theirs.json}
    if is_stream:
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        assert answer.body == json.dumps(completion(SAID, "tool_calls")).encode()


def test_embeddings_and_responses_have_their_places(served: Served, told: Told) -> None:
    told.say = lambda _: whole({"data": [], "output": [], "id": "resp_1"})
    with (
        openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as ours,
        official(told) as theirs,
    ):
        ours.embeddings.with_raw_response.create(model="embed", input="x")
        place = told.last.path
        theirs.embeddings.with_raw_response.create(model="vectors", input="x")
        assert told.last.path == place
        ours.responses.with_raw_response.create(model="small", input="x")
        sent = told.last
        theirs.responses.with_raw_response.create(model="my deployment", input="x")
        assert (told.last.path, told.last.json["model"]) == (sent.path, sent.json["model"])
