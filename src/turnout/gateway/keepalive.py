"""This module keeps a silent stream alive: a comment between two events, from before the first one.

Proxies close a connection on which nothing moves, some after 60 seconds. A stream whose upstream thinks for
longer is therefore begun before there is an answer. From then on its status is 200: a failure that would have
been an error with a status becomes an error event.
"""

from __future__ import annotations

import asyncio
from typing import final

from turnout.gateway.exchange import Exchange
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import start_events

_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")


@final
class KeepAlive:
    """Sends a comment on one stream whenever nothing was sent for a while.

    Parameters
    ----------
    exchange:
        Whose stream it is.
    """

    __slots__ = ("_every_s", "_exchange", "_handle", "_last_s", "_loop", "_ping", "has_begun", "is_torn")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._every_s = exchange.parts.config.server.keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._ping: asyncio.Task[None] | None = None
        self._handle = self._loop.call_later(self._every_s, self._look)
        self.has_begun = False
        """Whether the response was begun before there was an answer."""
        self.is_torn = False
        """Whether an event is only half sent, so that nothing may come between."""

    def touch(self) -> None:
        """Note that something was sent."""
        self._last_s = self._loop.time()

    async def settle(self) -> None:
        """Wait until a comment that is being sent is out."""
        if self._ping is not None and not self._ping.done():
            await self._ping

    def stop(self) -> None:
        """Send no more."""
        self._handle.cancel()

    async def ended(self) -> bool:
        """Send no more, and return whether the response was begun before there was an answer."""
        self.stop()
        await self.settle()
        return self.has_begun

    def _look(self) -> None:
        now_s = self._loop.time()
        if now_s - self._last_s >= self._every_s and not self.is_torn:
            self._last_s = now_s
            if self._ping is None or self._ping.done():
                self._ping = self._loop.create_task(self._send())
        self._handle = self._loop.call_later(max(0.001, self._last_s + self._every_s - now_s), self._look)

    async def _send(self) -> None:
        exchange = self._exchange
        if not exchange.account.is_sending:
            exchange.account.is_sending = self.has_begun = True
            headers = [(b"x-turnout-decision-id", exchange.account.decision_id.encode())]
            begin = Reply(status=200, headers=[_TYPE])
            await start_events(exchange.send, begin, headers, is_estimated=False)
        body = exchange.protocol.ping
        await exchange.send({"type": "http.response.body", "body": body, "more_body": True})
