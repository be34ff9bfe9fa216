"""This module tells other gateways which upstreams rest, and hears it of them, by way of Redis.

A breaker that opens is noted with the time until which it rests, and every gateway holds its own breaker of
that place as long. It happens once a second beside the requests: none of them waits for Redis, and one that
is away leaves every gateway with what it has learned by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import msgspec

from turnout.core.clock import Clock
from turnout.gateway.breakers import Breakers, Key

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
"""Seconds between two exchanges."""


@final
class SharedBreakers:
    """Keeps the breakers of one gateway in step with those of others.

    Parameters
    ----------
    client:
        An asyncio client of the Redis that is shared.
    breakers:
        Returns the breakers in force.
    clock:
        What time it is; the clocks of hosts that share must agree to about a second.
    prefix:
        How the names of its entries begin.
    """

    def __init__(
        self, *, client: Redis, breakers: Callable[[], Breakers], clock: Clock, prefix: str = "turnout"
    ) -> None:
        self.client = client
        self.breakers = breakers
        self.clock = clock
        self.prefix = prefix
        self._told: dict[Key, float] = {}
        self._is_away = False

    async def run(self) -> None:
        """Exchange for ever."""
        while True:
            await self.exchange()
            await asyncio.sleep(PERIOD_S)

    async def exchange(self) -> None:
        """Tell what opened here, and take over what opened elsewhere."""
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(PERIOD_S):
                await self._tell()
                await self._hear()
            self._is_away = False
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_away:
                logger.warning("breakers are not shared while Redis is away: %s", error)
            self._is_away = True

    async def _tell(self) -> None:
        now_s = self.clock.now_s()
        for key, breaker in self.breakers().by_place.items():
            until_s = breaker.open_until_s
            if until_s is not None and until_s > now_s and self._told.get(key) != until_s:
                milliseconds = max(1, int((until_s - now_s) * 1000))
                await self.client.set(self._name(key), repr(until_s), px=milliseconds)
                self._told[key] = until_s

    async def _hear(self) -> None:
        places = self.breakers().by_place
        if not places:
            return
        found = await self.client.mget([self._name(key) for key in places])
        now_s = self.clock.now_s()
        for (key, breaker), value in zip(places.items(), found, strict=True):
            if value is not None and float(value) > now_s and self._told.get(key) != float(value):
                breaker.hold(float(value))
                self._told[key] = float(value)

    def _name(self, key: Key) -> str:
        return f"{self.prefix}:open:{msgspec.json.encode(key).decode()}"
