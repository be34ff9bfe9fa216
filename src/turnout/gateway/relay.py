"""This module passes a stream on where it arrives: from the upstream's connection to the client's, by a call.

No task wakes for an event. Only what has to wait does so: a client that has no room, names to be remembered
before the client can ask about them, and servers that take messages alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import final

from turnout.gateway.account import Account
from turnout.gateway.exchange import Exchange
from turnout.gateway.pins_store import Pin, is_part
from turnout.gateway.providers.base import Wait
from turnout.gateway.quick_cycle import QuickCycle
from turnout.gateway.stream import UsageCount

_BAD_EVENT = "upstream_bad_event"
_ERROR_EVENT = "upstream_error_event"


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
            await pin_made(self._exchange, self._pinned, self.scanner.usage)
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
            account.end(self._status, note_error(account) if scanner.has_error else None)


def note_error(account: Account) -> str:
    """Note that the upstream failed in the middle of its answer; return the word for it."""
    if (fault := f"{account.provider}: {_ERROR_EVENT}") not in account.faults:
        account.faults.append(fault)
    return _ERROR_EVENT


async def pin_made(exchange: Exchange, names: tuple[str, ...], usage: UsageCount | None) -> None:
    """Remember what the upstream keeps, and how long it is, before the client can ask about it."""
    account, pins = exchange.account, exchange.parts.pins
    if account.served is None:
        return
    parts = [name for name in names if is_part(name)]
    pin = Pin(maker=account.served.name, tenant=account.tenant)
    if parts:
        await pins.remember(parts, pin)
    if len(parts) < len(names):
        # Who goes on from an answer reads what it was made from, and the answer.
        tokens = 0 if usage is None else (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        await pins.remember([name for name in names if not is_part(name)], replace(pin, tokens=tokens))
