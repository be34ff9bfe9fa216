"""This module holds the settings of providers, one struct for each kind."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.secret import check_reference
from turnout.gateway.settings import Count, Name, Seconds, Settings

Api = Literal["chat", "responses", "conversations", "embeddings"]


_PATHS = ("/completions", "/responses", "/embeddings", "/messages")
"""Ends of what is copied from an example call; the gateway appends them itself."""


def _check_url(value: str, where: str) -> None:
    """Raise `ConfigError` for what is no URL of an upstream, or holds a password, which is not shown."""
    if "@" in (value.partition("://")[2] or value).partition("/")[0]:
        raise ConfigError(
            sentence(
                f"the setting '{where}' holds a user's name or password",
                allowed="a URL without one",
                do="name the place of the key in 'api_key' or 'api_key_env'",
            )
        )
    is_url = value.startswith(("http://", "https://")) and value.isprintable() and " " not in value
    if not is_url or "?" in value or "#" in value or value.rstrip("/").endswith(_PATHS):
        raise ConfigError(
            sentence(
                f"the setting '{where}' is wrong",
                allowed="a URL that starts with http:// or https://, without blanks and line ends, "
                "a query and the path of a call",
                got=value,
                do="write the address up to and including /v1",
            )
        )


class UpstreamSettings(Settings, frozen=True, kw_only=True):
    """What every upstream over HTTP has in common."""

    base_url: Name
    """URL up to and including the version, such as `/v1`."""
    api_key_env: Name | None = None
    """Name of the environment variable that holds the key; none means that no key is sent."""
    api_key: Name | None = None
    """Where the key is: `env:NAME` or `file:PATH`; instead of `api_key_env`."""
    connect_s: Seconds = 5.0
    """Seconds to wait for a connection."""
    first_byte_s: Seconds = 300.0
    """Seconds to wait for the first byte of the answer; without streaming that is the whole answer."""
    idle_s: Seconds = 120.0
    """Seconds of silence after the first byte before a stream counts as cut."""

    def check(self, name: str) -> None:
        """Raise `ConfigError` where the URL is none, or a key is written out."""
        if self.api_key is not None:
            check_reference(self.api_key, f"providers.{name}.api_key")
            if self.api_key_env is not None:
                raise ConfigError(
                    sentence(
                        f"the section 'providers.{name}' names two keys",
                        allowed="one of 'api_key' and 'api_key_env'",
                        do="keep one",
                    )
                )
        _check_url(self.base_url, f"providers.{name}.base_url")


class OpenAIBodySettings(UpstreamSettings, frozen=True, kw_only=True):
    """What is written into a body of OpenAI's."""

    max_tokens_field: Name = "max_completion_tokens"
    """Request field that carries a candidate's token budget; older servers know `max_tokens`."""
    adapter_model: Name = "{model}:{adapter}"
    """How the upstream names a model with an adapter; vLLM takes `{adapter}`."""
    apis: list[Api] = msgspec.field(
        default_factory=lambda: ["chat", "responses", "conversations", "embeddings"]
    )
    """The upstream's paths; a request for another one is not sent there."""
    ask_usage: bool = True
    """Whether to ask a stream for its usage where the client did not; the extra chunk is taken out again."""


class OpenAISettings(OpenAIBodySettings, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """Any server that speaks the OpenAI API."""


class AzureSettings(OpenAIBodySettings, frozen=True, kw_only=True, tag_field="kind", tag="azure"):
    """Azure OpenAI, where a model's name is that of a deployment."""

    api_version: Name = "2024-10-21"
    """The `api-version` of every request."""


class BedrockSettings(UpstreamSettings, frozen=True, kw_only=True, tag_field="kind", tag="bedrock"):
    """Amazon Bedrock's runtime."""

    region: Name = "us-east-1"
    """Region that requests are signed for."""
    access_key_env: Name = "AWS_ACCESS_KEY_ID"
    """Name of the environment variable that holds the access key; not read where `api_key_env` is set."""
    secret_key_env: Name = "AWS_SECRET_ACCESS_KEY"
    """Name of the environment variable that holds the secret key."""
    session_token_env: Name = "AWS_SESSION_TOKEN"
    """Name of the environment variable that may hold a session token."""


class GeminiSettings(UpstreamSettings, frozen=True, kw_only=True, tag_field="kind", tag="gemini"):
    """Google's Gemini API."""

    thinking_field: Literal["thinkingLevel", "thinkingBudget"] = "thinkingLevel"
    """How an effort is written; models before Gemini 3 know budgets only."""


class AnthropicSettings(UpstreamSettings, frozen=True, kw_only=True, tag_field="kind", tag="anthropic"):
    """Any server that speaks Anthropic's Messages API."""

    version: Name = "2023-06-01"
    """The `anthropic-version` that is sent where the client sends none."""
    default_max_tokens: Count = 8192
    """Token limit of a request that sets none; this API requires one."""
    thinking: Literal["adaptive", "effort", "budget"] = "adaptive"
    """How an effort is written: as an effort, as one with adaptive thinking, or as a budget of thinking."""


class ReplaySettings(Settings, frozen=True, kw_only=True, tag_field="kind", tag="replay"):
    """A recording that answers known questions."""

    table: Name
    """Folder of an outcome table whose outcomes have a column `answer`."""


class LocalSettings(Settings, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """A model of one's own in this process; needs the extra `nn`."""

    folder: Name
    """Checkpoint folder, with its variants (compute budgets, adapters) beside it."""
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    """Most requests that are read together."""
    max_waiting: Count = 256
    """Most requests that wait; one more is answered with 503, or goes to the next ranked candidate."""
    max_running: Count = 64
    """Most requests that are answered at a time; each keeps a cache."""
    max_output_tokens: Count = 1024
    """Most tokens of an answer, whatever the request asks for."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """Temperature where a request sets none; 0 is greedy, as recorded tables are."""
    threads: Count | None = None
    """Threads of the model's arithmetic; none leaves the library's default."""


ProviderSettings = (
    OpenAISettings
    | AzureSettings
    | AnthropicSettings
    | GeminiSettings
    | BedrockSettings
    | ReplaySettings
    | LocalSettings
)
