"""Clients of other projects, litellm and langchain, before an upstream of Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.gateway.anthropic_upstream import TEXT, TOOL_USE, AnthropicUpstream, anthropic_server, message
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

pytestmark = pytest.mark.filterwarnings("default")

ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "multiply", "description": "x", "parameters": PARAMETERS},
}


@pytest.fixture(scope="module")
def claude() -> Iterator[AnthropicUpstream]:
    with anthropic_server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def base_url(claude: AnthropicUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ledger = tmp_path_factory.mktemp("sdks") / "ledger.sqlite"
    config = msgspec.structs.replace(
        make_config("http://x", Path(ledger)),
        providers={"claude": AnthropicSettings(base_url=claude.base_url)},
        candidates={"large": CandidateSettings(model="claude")},
    )
    with running(config, deployment=make_deployment()) as ready:
        yield ready.base_url


@pytest.fixture(autouse=True)
def told(claude: AnthropicUpstream) -> None:
    claude.reset()
    claude.told = message("claude", TEXT, TOOL_USE, stop="tool_use")


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Its import asks the network for prices otherwise.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    return litellm


def test_litellm_as_a_client_of_openais(base_url: str, litellm: Any) -> None:
    given: Any = {
        "model": "openai/large",
        "api_base": base_url,
        "api_key": "none",
        "messages": ASK,
        "tools": [TOOL],
    }
    got = litellm.completion(**given)
    assert got.choices[0].message.content == TEXT["text"]
    assert json.loads(got.choices[0].message.tool_calls[0].function.arguments) == TOOL_USE["input"]
    chunks = list(litellm.completion(**given, stream=True, stream_options={"include_usage": True}))
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == TEXT["text"]
    assert json.loads(whole.choices[0].message.tool_calls[0].function.arguments) == TOOL_USE["input"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (150, 9)


def test_litellm_as_a_client_of_anthropics(base_url: str, litellm: Any) -> None:
    root = base_url.removesuffix("/v1")
    got = litellm.completion(
        model="anthropic/large", api_base=root, api_key="none", messages=ASK, max_tokens=50
    )
    assert got.choices[0].message.content == TEXT["text"]
    assert got.usage.prompt_tokens == 150


def test_langchain_calls_tools_and_streams(base_url: str) -> None:
    model = ChatOpenAI(model="large", base_url=base_url, api_key=SecretStr("none"), max_retries=0)
    said = model.bind_tools([TOOL]).invoke("What is 17 * 23?")
    assert said.text == TEXT["text"]
    assert [call["args"] for call in said.tool_calls] == [TOOL_USE["input"]]
    assert said.usage_metadata is not None
    assert said.usage_metadata["input_tokens"] == 150
    whole: Any = None
    for chunk in model.bind_tools([TOOL]).stream("What is 17 * 23?", stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == TEXT["text"]
    assert [call["args"] for call in whole.tool_calls] == [TOOL_USE["input"]]
    assert whole.usage_metadata["output_tokens"] == 9
    history: Any = [
        ("user", "What is 17 * 23?"),
        said,
        {"role": "tool", "tool_call_id": "toolu_1", "content": "391"},
    ]
    assert model.invoke(history).text == TEXT["text"]
