"""This module passes a stream on where it arrives: from the upstream's connection to the client's, by a call.

No task wakes for an event. Only what has to wait does so: a client that has no room, names to be remembered
before the client can ask about them, and servers that take messages alone.
"""

from __future__ import annotations

from functools import partial
from typing import final

from turnout.gateway.exchange import Exchange
from turnout.gateway.pins_store import Pin
from turnout.gateway.providers.base import Wait
from turnout.gateway.quick_cycle import QuickCycle

_BAD_EVENT = "upstream_bad_event"


@final
class Relay:
    """Takes the blocks of one stream.

    Parameters
    ----------
    exchange:
        Whose stream it is.
    status:
        Of the answer, for its row.
    """

    __slots__ = ("_exchange", "_pinned", "_status", "cycle", "scanner")

    def __init__(self, exchange: Exchange, status: int) -> None:
        self._exchange = exchange
        self._status = status
        self._pinned: tuple[str, ...] = ()
        self.scanner = exchange.protocol.scanner(exchange.request)
        self.cycle: QuickCycle | None = None
        """What writes to the client; None where messages do."""

    def take_in(self, block: bytes) -> Wait | None:
        """Pass on the whole events of a block; return what is to be waited for before the next one."""
        scanner, cycle = self.scanner, self.cycle
        whole = scanner.feed(block)
        if cycle is None or scanner.made != self._pinned:
            return partial(self._pass_on, whole)
        has_room = not whole or cycle.put(whole, is_last=False)
        if scanner.is_done or scanner.has_bad_event:
            self._note()
        return None if has_room else cycle.drain

    async def _pass_on(self, whole: bytes) -> None:
        if self.scanner.made != self._pinned:
            self._pinned = self.scanner.made
            await pin_made(self._exchange, self._pinned)
        if whole:
            await self._exchange.send({"type": "http.response.body", "body": whole, "more_body": True})
        self._note()

    def _note(self) -> None:
        account, scanner = self._exchange.account, self.scanner
        if scanner.has_bad_event and (bad := f"{account.provider}: {_BAD_EVENT}") not in account.faults:
            account.faults.append(bad)
        if scanner.is_done:
            # Clients may leave at the last event, and upstreams may hang up: the answer is complete.
            account.read_stream(scanner)
            account.end(self._status)


async def pin_made(exchange: Exchange, names: tuple[str, ...]) -> None:
    """Remember what the upstream keeps, before the client can ask about it."""
    account = exchange.account
    if names and account.served is not None:
        await exchange.parts.pins.remember(names, Pin(maker=account.served.name, tenant=account.tenant))
