"""This module follows an answer that goes on upstream after its request: Responses in the background.

What it costs is known when it has ended. Until then its row stays open and its budget reserved, and the
gateway asks the upstream from time to time. Where the end cannot be seen (nobody keeps it, it was deleted, it
takes too long, the gateway stops), the answer is charged with the most that it may have taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from turnout.gateway.afford import most_output_tokens
from turnout.gateway.exchange import Exchange
from turnout.gateway.protocols.responses_scan import FAILED, Kept, read_kept
from turnout.gateway.providers.base import Fault, KeptCall
from turnout.gateway.relay import pin_made
from turnout.gateway.stream import UsageCount

_KIND = "responses"
_FIRST_S = 0.5
_MOST_S = 15.0
"""Wait before the first look, and the longest between two."""
_GROWTH = 1.5
_PATIENCE_S = 6 * 3600.0
"""How long an answer is followed."""
_GONE = (400, 403, 404, 410)


def follow(exchange: Exchange, close_books: Callable[[Exchange], None]) -> None:
    """Follow `exchange.unfinished` to its end; then its row is written and its books are closed."""
    parts = exchange.parts
    # What it began with stays open for it.
    parts.running.count += 1

    def end() -> None:
        if exchange.account.status is None:
            _charge_the_most(exchange)
            exchange.account.end(*exchange.outcome)
        parts.running.count -= 1
        close_books(exchange)

    async def errand() -> None:
        try:
            kept = await _ended(exchange)
            if kept is not None:
                await _take_over(exchange, kept)
        finally:
            end()

    parts.errands.begin(errand, end)


async def _ended(exchange: Exchange) -> Kept | None:
    """Return the answer when it has come to its end; None where that will not be seen."""
    account, parts = exchange.account, exchange.parts
    if account.served is None or exchange.unfinished is None:
        return None
    provider = parts.places[account.served.name][0]
    if not provider.keeps(_KIND):
        return None
    call = KeptCall(
        method="GET",
        kind=_KIND,
        path="/" + quote(exchange.unfinished, safe=""),
        headers=() if exchange.ruling is None else exchange.ruling.request_headers,
    )
    wait_s = _FIRST_S
    until_s = asyncio.get_running_loop().time() + _PATIENCE_S
    while asyncio.get_running_loop().time() < until_s:
        await asyncio.sleep(wait_s)
        wait_s = min(_MOST_S, wait_s * _GROWTH)
        try:
            reply = await provider.ask_kept(call)
        except Fault:
            continue
        if reply.chunks is not None:
            reply.chunks.close()
            return None
        if reply.status in _GONE:
            return None
        kept = read_kept(reply.body) if reply.status == 200 else None
        if kept is not None and not kept.is_unfinished:
            return kept
    return None


async def _take_over(exchange: Exchange, kept: Kept) -> None:
    """Charge what the answer tells; one that failed, or was cancelled, and tells nothing, by its state."""
    account = exchange.account
    usage = kept.count
    if kept.status == FAILED:
        account.faults.append(f"{account.provider}: upstream_error_event")
        exchange.outcome = exchange.outcome[0], "upstream_error_event"
    if usage is None or usage.completion_tokens is None:
        if kept.status != FAILED:
            return  # it may have written all that it was allowed
        usage = UsageCount(prompt_tokens=None if usage is None else usage.prompt_tokens, completion_tokens=0)
    account.usage, account.output_estimate = usage, None
    if kept.status == FAILED and not usage.completion_tokens:
        account.output_estimate = 0
    account.end(*exchange.outcome)
    await pin_made(exchange, kept.names, usage)


def _charge_the_most(exchange: Exchange) -> None:
    account, otherwise = exchange.account, exchange.parts.config.auth.reserve_output_tokens
    account.output_estimate = most_output_tokens(exchange.request, account.served, otherwise)
