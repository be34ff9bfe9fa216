"""A server on a loop of its own, and a gateway's settings with one upstream of each kind there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tests.gateway.settings import make_config
from turnout.core.candidate import Candidate, PriceCard
from turnout.gateway.config import Config
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import (
    AnthropicSettings,
    BedrockSettings,
    GeminiSettings,
    OpenAISettings,
)

KINDS = ("openai", "chat only", "anthropic", "gemini", "bedrock")


class Handler(Protocol):
    """Answers connections; told its own address as `root`."""

    root: str

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, /) -> None:
        """Serve one connection."""


@contextmanager
def listening(made: Handler) -> Iterator[None]:
    """Serve connections by `made` until the block ends."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
        made.root = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def config_of(root: str, ledger: Path, kinds: tuple[str, ...] = KINDS, **changes: Any) -> Config:
    """Return settings in which each candidate has an upstream of its own kind; Bedrock reads `BEARER`."""
    slow: Any = {"first_byte_s": 30.0, "idle_s": 30.0}
    every = {
        "openai": OpenAISettings(base_url=f"{root}/v1", **slow),
        "chat only": OpenAISettings(base_url=f"{root}/v1", apis=["chat"], **slow),
        "anthropic": AnthropicSettings(base_url=f"{root}/v1", **slow),
        "gemini": GeminiSettings(base_url=root, **slow),
        "bedrock": BedrockSettings(base_url=root, api_key_env="BEARER", **slow),
    }
    plain = make_config(root, ledger)
    return msgspec.structs.replace(
        plain,
        providers={kind: every[kind] for kind in kinds},
        default_provider="openai",
        candidates={kind: CandidateSettings(provider=kind) for kind in kinds},
        **changes,
    )


def pool_of(card: PriceCard, kinds: tuple[str, ...] = KINDS) -> tuple[Candidate, ...]:
    """Return the candidates, at one price."""
    return tuple(Candidate(model=kind, price_card=card, context_tokens=400_000) for kind in kinds)
