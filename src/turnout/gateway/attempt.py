"""This module is the step that asks: down the ranked list until somebody answers, before the first byte.

Candidates behind an open breaker are passed over. Where nobody answered, the list may be gone through again
after a wait, within the deadline and the allowance of retries. After the first byte nothing is tried again.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import NoReturn

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.alarm import Alarm
from turnout.gateway.errors import ApiError
from turnout.gateway.exchange import Exchange
from turnout.gateway.hedge import ask_hedged
from turnout.gateway.providers.base import Fault, Reply
from turnout.gateway.providers.blame import own_limit
from turnout.gateway.retry import backoff_s
from turnout.gateway.select import Selection
from turnout.gateway.single import Answer, ask_one, take

_BEYOND = "upstream_limit"
"""The word for a candidate that refused a request for a limit of its own."""

# Seeded by the system: two gateways must not wait in step.
_chance = random.Random()


async def ask_down(exchange: Exchange, selection: Selection) -> Reply:
    """Ask until somebody answers; raises `ApiError` where nobody does in time."""
    parts = exchange.parts
    parts.retries.earn()
    parts.hedges.earn()
    alarm = Alarm(parts.config.routing.deadline_s - exchange.account.elapsed_s())
    exchange.deadline_s = alarm.due_s
    try:
        return await _rounds(exchange, selection.ranked[: parts.config.routing.max_attempts])
    except asyncio.CancelledError as error:
        if alarm.is_cause():
            raise _too_late(parts.config.routing.deadline_s) from error
        raise
    finally:
        alarm.stop()


async def _rounds(exchange: Exchange, ranked: tuple[Candidate, ...]) -> Reply:
    """Go through the list once, and again as often as retries are allowed."""
    last: Fault | None = None
    rest_s: float | None = None
    number = 0
    while True:
        reply, faults = await _round(exchange, ranked)
        if reply is not None:
            return reply
        last = next(reversed(faults.values()), last)
        told_s = [fault.retry_after_s for fault in faults.values() if fault.retry_after_s is not None]
        rest_s = min(told_s, default=rest_s)
        again = tuple(candidate for candidate, fault in faults.items() if fault.may_retry)
        if last is None:
            places = [exchange.parts.places[candidate.name] for candidate in ranked]
            raise exchange.parts.breakers.refusal(places)
        if not again or not _may_retry(exchange, number):
            _end(last, exchange.account.attempts, rest_s)
        wait_s = _wait_s(exchange, number, [faults[candidate] for candidate in again])
        if asyncio.get_running_loop().time() + wait_s >= exchange.deadline_s:
            _end(last, exchange.account.attempts, rest_s)
        await asyncio.sleep(wait_s)
        ranked, number = again, number + 1


async def _round(
    exchange: Exchange, ranked: tuple[Candidate, ...]
) -> tuple[Reply | None, dict[Candidate, Fault]]:
    """Ask everybody once in order, until one answers; return that reply, and the faults of the others."""
    account, breakers = exchange.account, exchange.parts.breakers
    faults: dict[Candidate, Fault] = {}
    asked: set[Candidate] = set()
    refused: Answer | None = None
    for place, candidate in enumerate(ranked):
        if candidate in asked or (refused is not None and not _may_take(candidate, refused)):
            continue
        leave = breakers.enter(exchange.parts.places[candidate.name])
        if leave is None:
            account.faults.append(f"{candidate.name}: breaker_open")
            continue
        asked.add(candidate)
        try:
            if exchange.parts.config.routing.hedge_after_s is None:
                answer = await ask_one(exchange, candidate, leave)
            else:
                answer = await ask_hedged(exchange, candidate, leave, ranked[place + 1 :], asked)
        except Fault as fault:
            faults[candidate] = fault
            if not fault.may_fall_back:
                break
            continue
        if answer.reply.status < 400 or own_limit(answer.reply.status, answer.reply.body) is None:
            return take(exchange, answer), faults
        if place + 1 < len(ranked):
            account.faults.append(f"{answer.candidate.name}: {_BEYOND}")
        answer.leave.succeeded()
        refused = refused or answer
    # The first one's own words: it was chosen, and nobody else takes the request either.
    return None if refused is None else take(exchange, refused), faults


def _may_take(candidate: Candidate, refused: Answer) -> bool:
    """Whether a candidate may take what another one refused: not where it is known to hold no more."""
    if own_limit(refused.reply.status, refused.reply.body) != "length":
        return True
    own, least = candidate.context_tokens, refused.candidate.context_tokens
    return own is None or least is None or own > least


def _may_retry(exchange: Exchange, number: int) -> bool:
    """Whether there is a retry left for this request, and one in the allowance of all."""
    return number < exchange.parts.config.routing.retries and exchange.parts.retries.spend()


def _wait_s(exchange: Exchange, number: int, faults: list[Fault]) -> float:
    """Return the wait before the next round: as long as the least patient upstream asks, or a backoff."""
    asked_s = [fault.retry_after_s for fault in faults if fault.retry_after_s is not None]
    own_s = backoff_s(number, exchange.parts.config.routing.retry_wait_s, _chance)
    return max(own_s, min(asked_s, default=0.0))


def _end(last: Fault, attempts: int, rest_s: float | None) -> NoReturn:
    """Raise what the client is told.

    Where the last failed otherwise and an earlier one only asked for a rest, the client is told how long.
    """
    # Others were asked already: a client that tries again on its own would multiply the load.
    more = [(b"x-should-retry", b"false")] if attempts > 1 else []
    if rest_s is not None and last.error.status >= 500:
        more.append((b"retry-after", b"%d" % max(1, math.ceil(rest_s))))
    told = [header for header in last.error.headers if not more or header[0] != more[0][0]]
    last.error.headers[:] = [*told, *more]
    raise last.error from last


def _too_late(limit_s: float) -> ApiError:
    message = sentence(
        "no upstream sent a first byte before the request's deadline",
        allowed=f"{limit_s:g} s for all calls together",
        do="ask again, or raise routing.deadline_s",
    )
    return ApiError(504, message, code="deadline_exceeded", kind="timeout_error")
