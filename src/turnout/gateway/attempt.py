"""This module is the step that asks: down the ranked list until somebody answers, before the first byte."""

from __future__ import annotations

import asyncio

from turnout.core.candidate import Candidate
from turnout.gateway.errors import ApiError
from turnout.gateway.exchange import Exchange
from turnout.gateway.providers.base import Call, Fault, Reply
from turnout.gateway.select import Selection


async def ask_down(exchange: Exchange, selection: Selection) -> Reply:
    """Ask down the ranked list until somebody answers; raises `ApiError` where nobody does."""
    account, limit = exchange.account, exchange.parts.config.routing.max_attempts
    last: Fault | None = None
    for candidate in selection.ranked[:limit]:
        try:
            reply = await _ask(exchange, candidate)
        except Fault as fault:
            last = fault
            account.faults.append(f"{candidate.name}: {fault.error.code}")
            if not fault.may_fall_back:
                break
            continue
        account.served = candidate
        return reply
    if last is None:
        raise RuntimeError("a selection ranks at least one candidate")
    if last.reply is not None:
        return last.reply
    raise _final(last, account.attempts)


async def _ask(exchange: Exchange, candidate: Candidate) -> Reply:
    account = exchange.account
    provider, model = exchange.parts.places[candidate.name]
    account.attempts += 1
    account.provider, account.is_replay = provider.name, provider.is_replay
    call = Call(
        request=exchange.request,
        candidate=candidate,
        model=model,
        decision_id=account.decision_id,
        protocol=exchange.protocol.name,
    )
    try:
        return await provider.ask(call)
    except asyncio.CancelledError:
        if call.work.output_tokens is not None:
            # Nobody waits any more, but the prompt was read and tokens were written.
            account.served, account.output_estimate = candidate, call.work.output_tokens
        raise


def _final(last: Fault, attempts: int) -> ApiError:
    if attempts > 1:
        # Others were asked already: a client that tries again on its own would multiply the load.
        last.error.headers.append((b"x-should-retry", b"false"))
    last.error.__cause__ = last
    return last.error
