"""This module keeps pins in the Redis that hosts share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import msgspec

from turnout.gateway.pins_store import Pin, PinStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

KEPT_S = 30 * 86_400
"""OpenAI keeps a response for 30 days."""
LASTS_S = 365 * 86_400
"""It keeps a conversation until it is deleted; here its name goes a year after the last response to it."""

_decode = msgspec.json.Decoder(tuple[str | int, ...]).decode


@final
class RedisPins(PinStore):
    """The pins of several hosts.

    Parameters
    ----------
    client:
        An asyncio client, which this store closes.
    prefix:
        How the names of its entries begin.
    """

    def __init__(self, *, client: Redis, prefix: str = "turnout") -> None:
        self.client = client
        self.prefix = prefix
        self._is_away = False

    async def note(self, digests: Sequence[bytes], pin: Pin, *, lasts: bool = False) -> None:
        """Keep who made what, for as long as OpenAI keeps such a thing."""
        from redis.exceptions import RedisError

        try:
            for digest in digests:
                value = msgspec.json.encode((pin.maker, pin.tenant, pin.tokens))
                await self.client.set(self._name(digest), value, ex=LASTS_S if lasts else KEPT_S)
            self._is_away = False
        except (RedisError, OSError, TimeoutError) as error:
            self._say(error)

    async def find(self, digest: bytes) -> Pin | None:
        """Return who made it, or None."""
        from redis.exceptions import RedisError

        try:
            found = await self.client.get(self._name(digest))
            self._is_away = False
        except (RedisError, OSError, TimeoutError) as error:
            self._say(error)
            return None
        if found is None:
            return None
        maker, tenant, *tokens = _decode(found)  # older entries have no tokens
        return Pin(maker=str(maker), tenant=str(tenant), tokens=int(tokens[0]) if tokens else 0)

    async def close(self) -> None:
        """Close the client."""
        await self.client.aclose()

    def _name(self, digest: bytes) -> str:
        return f"{self.prefix}:pin:{digest.hex()}"

    def _say(self, error: Exception) -> None:
        if not self._is_away:
            logger.warning("who keeps which response is not shared while Redis is away: %s", error)
        self._is_away = True
