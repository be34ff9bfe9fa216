"""This module remembers who has read a conversation already, since a provider reads it again at a discount.

A provider that served the last turn holds its prompt in a cache: the tokens that it has seen cost its cached
tariff, while anybody else reads them at the full one. Added to each candidate's expected cost, this makes a
change of the model worth its price, or not: score minus price, as everywhere. Where money has no price (the
best quality is asked for), or a price card knows no cached tariff, nothing keeps a conversation where it is.

How much of a prompt is really cached is taken from the last answer where the provider says so (the idea of
Plano's routing budget, which assumes it).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import msgspec
import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.outcomes import Floats
from turnout.gateway.conversation import USER, read_turns
from turnout.gateway.wire import ChatRequest

MAX_CONVERSATIONS = 50_000
"""Conversations that are remembered; beyond them the one that was silent longest is forgotten."""

_HEADERS = (
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
    b"x-session-id",
    b"x-session-affinity",
    b"x-opencode-session",
)
_MEMBER = "prompt_cache_key"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Warm:
    """Who served a conversation last, and what of it is cached there."""

    name: str
    """The candidate."""
    tokens: int
    """Tokens of the conversation with its last answer."""
    share: float
    """Share of the tokens seen before that the provider read from its cache; 1 until it has said so."""
    last_s: float


@final
class Warmth:
    """The conversations of one gateway process.

    Parameters
    ----------
    idle_s:
        Seconds of silence after which a provider has forgotten a prompt.
    clock:
        What time it is.
    """

    def __init__(self, *, idle_s: float, clock: Clock) -> None:
        self.idle_s = idle_s
        self.clock = clock
        self._by_key: OrderedDict[str, Warm] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: str) -> Warm | None:
        """Return who has a conversation warm, or None."""
        warm = self._by_key.get(key)
        if warm is None or self.clock.now_s() - warm.last_s > self.idle_s:
            return None
        return warm

    def note(
        self, key: str, name: str, *, input_tokens: int, output_tokens: int, cached_tokens: int | None
    ) -> None:
        """Remember who answered a turn."""
        before = self.find(key)
        share = 1.0
        if before is not None and before.name == name:
            seen = min(before.tokens, input_tokens)
            share = before.share if cached_tokens is None or not seen else min(1.0, cached_tokens / seen)
        self._by_key[key] = Warm(
            name=name, tokens=input_tokens + output_tokens, share=share, last_s=self.clock.now_s()
        )
        self._by_key.move_to_end(key)
        while len(self._by_key) > MAX_CONVERSATIONS:
            self._by_key.popitem(last=False)

    def reading_usd(self, key: str, candidates: Sequence[Candidate], input_tokens: int) -> Floats | None:
        """Return what each candidate charges for tokens read before, shape (M,); None where nobody has."""
        warm = self.find(key)
        return None if warm is None else reading_usd(warm, candidates, input_tokens)

    def carry_over(self, before: Warmth) -> None:
        """Take over what was remembered under an earlier configuration."""
        self._by_key = before._by_key


def reading_usd(warm: Warm, candidates: Sequence[Candidate], input_tokens: int) -> Floats:
    """Return what each candidate charges for tokens read before, shape (M,); 0 without a card."""
    seen = min(warm.tokens, input_tokens)
    usd_M = np.zeros(len(candidates))
    for column, candidate in enumerate(candidates):
        if candidate.price_card is not None:
            cached = seen * warm.share if candidate.name == warm.name else 0.0
            usd_M[column] = candidate.price_card.usd(
                input_tokens=seen, output_tokens=0.0, cached_tokens=cached
            )
    return usd_M


def key_of(request: ChatRequest, headers: Sequence[tuple[bytes, bytes]], tenant: str) -> str:
    """Return what names a conversation: what the client calls it, else how it begins; tenants share none."""
    given = dict(headers)
    name = next((given[header] for header in _HEADERS if given.get(header)), None)
    if name is None and _MEMBER in request.members:
        name = bytes(request.members[_MEMBER])
    if name is None:
        name = msgspec.json.encode(_beginning(request))
    digest = hashlib.blake2b(name, digest_size=16, key=tenant.encode()[:64])
    return digest.hexdigest()


def _beginning(request: ChatRequest) -> list[Any]:
    """Return the texts up to the first message of the user, and the tools."""
    texts: list[Any] = []
    for turn in read_turns(request.members):
        texts.append([turn.role, turn.text])
        if turn.role == USER:
            break
    return [texts, bytes(request.members.get("tools", b"")).decode("utf-8", "replace")]
