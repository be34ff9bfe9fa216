"""This module keeps a silent stream alive: a comment between two events, from before the first one.

Proxies close a connection on which nothing moves, some after 60 seconds. A stream whose upstream thinks for
longer is therefore begun before there is an answer. From then on its status is 200: a failure that would have
been an error with a status becomes an error event.
"""

from __future__ import annotations

import asyncio
from typing import final

from turnout.gateway.bell import Bell, bell_of
from turnout.gateway.exchange import Exchange
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import start_events
from turnout.gateway.stream import Scanner

_LOOKS = 2
"""How often a stream is looked at in the time that it may be silent."""

_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")


@final
class KeepAlive:
    """Sends a comment on one stream whenever nothing was sent for a while.

    Parameters
    ----------
    exchange:
        Whose stream it is.
    """

    __slots__ = (
        "_bell",
        "_every_s",
        "_exchange",
        "_num_events",
        "_num_quiet",
        "_ping",
        "_scanner",
        "due_s",
        "has_begun",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._bell: Bell = bell_of(asyncio.get_running_loop())
        self._every_s = exchange.parts.config.server.keep_alive_s / _LOOKS
        self._ping: asyncio.Task[None] | None = None
        self._scanner: Scanner | None = None
        self._num_events = self._num_quiet = 0
        self.has_begun = False
        """Whether the response was begun before there was an answer."""
        self._again()

    def watch(self, scanner: Scanner) -> None:
        """Look at what the stream has brought: from time to time, so that no event costs anything."""
        self._scanner = scanner
        self._num_quiet = 0

    @property
    def is_torn(self) -> bool:
        """Whether an event may have been sent in part."""
        return self._scanner is not None and self._scanner.is_torn

    async def settle(self) -> None:
        """Wait until a comment that is being sent is out."""
        if self._ping is not None and not self._ping.done():
            await self._ping

    def stop(self) -> None:
        """Send no more."""
        self._bell.remove(self)

    async def ended(self) -> bool:
        """Send no more, and return whether the response was begun before there was an answer."""
        self.stop()
        await self.settle()
        return self.has_begun

    def _again(self) -> None:
        self.due_s = self._bell.loop.time() + self._every_s
        self._bell.add(self)

    def ring(self) -> None:
        """Send a comment where nothing has come since so many looks; never into the middle of an event."""
        num_events = 0 if self._scanner is None else self._scanner.num_events
        self._num_quiet = self._num_quiet + 1 if num_events == self._num_events else 0
        self._num_events = num_events
        if self._num_quiet >= _LOOKS and not self.is_torn and (self._ping is None or self._ping.done()):
            self._num_quiet = 0
            self._ping = self._bell.loop.create_task(self._send())
        self._again()

    async def _send(self) -> None:
        exchange = self._exchange
        if not exchange.account.is_sending:
            exchange.account.is_sending = self.has_begun = True
            headers = [(b"x-turnout-decision-id", exchange.account.decision_id.encode())]
            begin = Reply(status=200, headers=[_TYPE])
            await start_events(exchange.send, begin, headers, is_estimated=False)
        body = exchange.protocol.ping
        await exchange.send({"type": "http.response.body", "body": body, "more_body": True})
