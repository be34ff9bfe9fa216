"""Who answers: a provider takes a request and a candidate and returns a reply.

`openai` is any server with the OpenAI API and `azure` the same at Azure; `anthropic`, `gemini` and `bedrock`
speak their own; `replay` is a recording, `local` a model in this process. A new kind of upstream is a dialect
here, a struct in `gateway.settings_providers` and a line in `build`; `http` carries the bytes of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from turnout.gateway.providers.base import Provider
from turnout.gateway.settings_providers import (
    AnthropicSettings,
    AzureSettings,
    BedrockSettings,
    GeminiSettings,
    LocalSettings,
    OpenAISettings,
    ProviderSettings,
    UpstreamSettings,
)

if TYPE_CHECKING:
    from turnout.gateway.providers.dialect import Dialect


def build(name: str, settings: ProviderSettings) -> Provider:
    """Return the provider for its settings; reads the key or the table, opens no connection."""
    if isinstance(settings, OpenAISettings):
        from turnout.gateway.providers.openai import OpenAIDialect

        return _http(name, settings, lambda key: OpenAIDialect(settings=settings, api_key=key))
    if isinstance(settings, AnthropicSettings):
        from turnout.gateway.providers.anthropic import AnthropicDialect

        return _http(name, settings, lambda key: AnthropicDialect(settings=settings, api_key=key))
    if isinstance(settings, AzureSettings):
        from turnout.gateway.providers.azure import AzureDialect

        return _http(name, settings, lambda key: AzureDialect(settings=settings, api_key=key))
    if isinstance(settings, GeminiSettings):
        from turnout.gateway.providers.gemini import GeminiDialect

        return _http(name, settings, lambda key: GeminiDialect(settings=settings, api_key=key))
    if isinstance(settings, BedrockSettings):
        from turnout.gateway.providers.bedrock import BedrockDialect, read_aws_keys

        keys = read_aws_keys(name, settings)
        return _http(name, settings, lambda key: BedrockDialect(settings=settings, api_key=key, keys=keys))
    if isinstance(settings, LocalSettings):
        from turnout.gateway.providers.local import LocalProvider

        return LocalProvider(name=name, settings=settings)
    from turnout.gateway.providers.recording import read_recording
    from turnout.gateway.providers.replay import ReplayProvider

    return ReplayProvider(name=name, recording=read_recording(settings.table))


def _http(name: str, settings: UpstreamSettings, dialect: Callable[[str | None], Dialect]) -> Provider:
    from turnout.gateway.providers.http import HttpProvider, read_key

    return HttpProvider(name=name, settings=settings, dialect=dialect(read_key(name, settings)))
