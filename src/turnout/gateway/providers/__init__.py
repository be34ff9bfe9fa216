"""Who answers: a provider takes a request and a candidate and returns a reply.

`openai` is any server with the OpenAI API, `replay` is a recording, and `local` is a model in this process. A
new kind is one module here, one settings struct in `gateway.config` and one line in `build`.
"""

from __future__ import annotations

from turnout.gateway.config import LocalSettings, OpenAISettings, ProviderSettings
from turnout.gateway.providers.base import Provider


def build(name: str, settings: ProviderSettings) -> Provider:
    """Return the provider for its settings; reads the key or the table, opens no connection."""
    if isinstance(settings, OpenAISettings):
        from turnout.gateway.providers.openai import OpenAIProvider, read_key

        return OpenAIProvider(name=name, settings=settings, api_key=read_key(name, settings))
    if isinstance(settings, LocalSettings):
        from turnout.gateway.providers.local import LocalProvider

        return LocalProvider(name=name, settings=settings)
    from turnout.gateway.providers.recording import read_recording
    from turnout.gateway.providers.replay import ReplayProvider

    return ReplayProvider(name=name, recording=read_recording(settings.table))
