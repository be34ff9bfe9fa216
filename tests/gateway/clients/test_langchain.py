"""langchain's standard tests of chat models, for both of its clients before both kinds of upstream."""

from __future__ import annotations

import base64
import functools
import operator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models

from tests.gateway.conftest import Served

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.anyio]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tests a picture of our own: theirs is fetched from the network."""
    fetched = SimpleNamespace(get=lambda *_, **__: SimpleNamespace(content=PNG))
    monkeypatch.setattr(chat_models, "httpx", fetched)
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "turnout")


@pytest.fixture
def benchmark() -> None:
    """What a test asks for before it skips itself: it needs recordings of a real provider."""


vcr = benchmark


class Asks(ChatModelIntegrationTests):
    """What holds for every pair of a client and an upstream."""

    __test__ = False
    upstream = ""
    model_override_value = ""
    details: tuple[str, ...] = ("cache_read_input",)
    base_url = ""

    @pytest.fixture(autouse=True)
    def at(self, served: Served) -> None:
        """Know where the gateway is."""
        self.base_url = served.base_url

    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": self.details, "stream": self.details}

    def ask(self, *, stream: bool, **more: Any) -> AIMessage:
        """Ask once; the upstream reports every detail of its usage."""
        model = self.chat_model_class(**{**self.chat_model_params, **more})
        if not stream:
            return model.invoke("Hello")
        whole = functools.reduce(operator.add, model.stream("Hello"))
        assert isinstance(whole, AIMessageChunk)
        return whole

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        said = self.ask(stream=stream)
        assert said.usage_metadata is not None
        assert said.usage_metadata["input_token_details"]["cache_read"] == 4
        return said

    invoke_with_cache_creation_input = invoke_with_cache_read_input

    @property
    def common(self) -> dict[str, Any]:
        """Parameters of both clients; langchain shares connections between tests, whose loops end before."""
        return {"model": self.upstream, "api_key": "none", "default_headers": {"connection": "close"}}


class AsksOpenAI(Asks):
    """langchain's client of OpenAI's."""

    __test__ = False

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.common, "base_url": self.base_url, "stream_usage": True}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self.ask(stream=stream, reasoning_effort="high")


class AsksAnthropic(Asks):
    """langchain's client of Anthropic's."""

    __test__ = False
    supports_anthropic_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True

    @property
    def chat_model_class(self) -> type[ChatAnthropic]:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.common, "base_url": self.base_url.removesuffix("/v1"), "max_tokens": 100}


class TestOpenAIBeforeOpenAI(AsksOpenAI):
    __test__ = True
    upstream, model_override_value = "plain", "claude"
    details = ("cache_read_input", "reasoning_output")
    supports_json_mode = True
    supports_audio_inputs = True
    supports_image_tool_message = False  # OpenAI's chat has texts alone there


class TestOpenAIBeforeAnthropic(AsksOpenAI):
    __test__ = True
    upstream, model_override_value = "claude", "plain"
    supports_image_tool_message = True


class TestResponsesBeforeAnthropic(AsksOpenAI):
    __test__ = True
    upstream, model_override_value = "claude", "plain"
    supports_image_tool_message = True

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}


class TestAnthropicBeforeAnthropic(AsksAnthropic):
    __test__ = True
    details = ("cache_read_input", "cache_creation_input")
    upstream, model_override_value = "claude", "plain"


class TestAnthropicBeforeOpenAI(AsksAnthropic):
    __test__ = True
    upstream, model_override_value = "plain", "claude"
