"""This module remembers which provider keeps what: a response, a conversation, encrypted reasoning.

A request that builds on such a thing can only be answered there, whatever the router would choose, and only
for the tenant it was made for. What one process has seen it remembers itself; workers, hosts and the time
after a restart are served by a store (`pins_store`), which is asked for what this process does not know.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.pins_store import Pin, PinStore, conversation_in, is_seal
from turnout.gateway.providers.base import Place
from turnout.gateway.select import Selection
from turnout.gateway.wire import ChatRequest

CAPACITY = 100_000
"""Names that are remembered; the ones that were used longest ago are forgotten first."""


@final
class Pins:
    """A bounded memory: name -> who made it, and for whom.

    Parameters
    ----------
    capacity:
        Most names in memory.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.store: PinStore | None = None
        """What is shared with others and lasts; None for memory alone."""
        self._pins: OrderedDict[bytes, Pin] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pins)

    async def remember(self, names: Sequence[str], pin: Pin) -> None:
        """Note who made what; returns when others can know it."""
        for lasts in (False, True):
            digests = [_digest(name) for name in names if (conversation_in(name) is not None) == lasts]
            for digest in digests:
                self._keep(digest, pin)
            if self.store is not None and digests:
                await self.store.note(digests, pin, lasts=lasts)

    async def find(self, names: Sequence[str]) -> Pin | None:
        """Return who made the first of these that is known."""
        digests = [_digest(name) for name in names]
        for digest in digests:
            found = self._pins.get(digest)
            if found is not None:
                self._pins.move_to_end(digest)
                return found
        if self.store is None:
            return None
        for digest in digests:
            found = await self.store.find(digest)
            if found is not None:
                self._keep(digest, found)
                return found
        return None

    async def find_for(self, names: Sequence[str], tenant: str) -> Pin | None:
        """Return who made the first of these that is known.

        Raises `ApiError` (404 for a conversation, else 400) where one of them was made for another tenant. Of
        encrypted reasoning the latest that is known decides alone: a long conversation brings many.
        """
        first: Pin | None = None
        for name in names:
            if first is not None and is_seal(name):
                break
            pin = await self.find((name,))
            if pin is None:
                continue
            if pin.tenant != tenant:
                conversation = conversation_in(name)
                raise _unknown() if conversation is None else unknown_conversation(conversation)
            first = first or pin
        return first

    def _keep(self, digest: bytes, pin: Pin) -> None:
        self._pins[digest] = pin
        self._pins.move_to_end(digest)
        while len(self._pins) > self.capacity:
            self._pins.popitem(last=False)


def keep_to(
    pin: Pin | None,
    selection: Selection,
    *,
    known: Mapping[str, Candidate],
    places: Mapping[str, Place],
) -> Selection:
    """Return the selection with those alone whose provider keeps what the request builds on.

    Where the router ranked none of them, whoever made it is asked. Nothing changes for what nobody here has
    made. Raises `ApiError` (400) where the client names a candidate of another provider.
    """
    if pin is None:
        return selection
    maker = known.get(pin.maker)
    if maker is None or maker.name not in places:
        return selection
    provider = places[maker.name][0].name
    ranked = tuple(one for one in selection.ranked if places[one.name][0].name == provider)
    if ranked and ranked[0] is selection.ranked[0]:
        return msgspec.structs.replace(selection, ranked=ranked)
    if selection.reason == "named":
        raise _elsewhere(selection.ranked[0], maker)
    return msgspec.structs.replace(selection, ranked=ranked or (maker,), reason="pinned", propensity=1.0)


def going_on(pin: Pin | None, request: ChatRequest) -> ChatRequest:
    """Return the request with the tokens of what it goes on from, which its upstream reads and charges."""
    if pin is None or not pin.tokens:
        return request
    return msgspec.structs.replace(request, kept_tokens=pin.tokens)


def _digest(name: str) -> bytes:
    """Return what stands for a name: encrypted reasoning may be long, and is nobody else's business."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _elsewhere(named: Candidate, maker: Candidate) -> ApiError:
    message = sentence(
        f"{named.name!r} cannot go on from what this request builds on",
        allowed=f"a candidate of the provider that keeps it, such as {maker.name!r}",
        do="name that one, or send the whole conversation instead",
    )
    return ApiError(400, message, code="made_elsewhere", param="model")


def unknown_conversation(made_id: str) -> ApiError:
    """404 for a conversation that is not there for who asks, in the words that OpenAI begins with."""
    message = sentence(
        f"Conversation with id {made_id[:80]!r} not found",
        allowed="a conversation that was made through this gateway for the same tenant, and not deleted",
        do="make one with POST /v1/conversations",
    )
    return ApiError(404, message, code="conversation_not_found", param="conversation")


def _unknown() -> ApiError:
    message = sentence(
        "what this request builds on is not known",
        allowed="a response, a conversation or reasoning that was made for the same tenant",
        do="send the whole conversation instead",
    )
    return ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
