"""This module asks a second candidate where the first one is slow, and takes whoever answers first.

Dean and Barroso, "The Tail at Scale" (2013): a few extra calls after a wait cut the tail of latencies. A
loser's connection is closed; what it wrote until then may be charged and is not known, so the row says that
it is an estimate.
"""

from __future__ import annotations

import asyncio

from turnout.core.candidate import Candidate
from turnout.gateway.breakers import Pass
from turnout.gateway.exchange import Exchange
from turnout.gateway.single import Answer, ask_one


async def ask_hedged(
    exchange: Exchange,
    candidate: Candidate,
    leave: Pass,
    others: tuple[Candidate, ...],
    asked: set[Candidate],
) -> Answer:
    """Return the first answer; raises the `Fault` of the candidate where nobody gave one.

    Whom the hedge asks is added to `asked`.
    """
    running = [asyncio.create_task(ask_one(exchange, candidate, leave))]
    try:
        done, _ = await asyncio.wait(running, timeout=exchange.parts.config.routing.hedge_after_s)
        if not done and (second := _second(exchange, others)) is not None:
            asked.add(second[0])
            running.append(asyncio.create_task(ask_one(exchange, *second)))
        return await _first(exchange, running)
    except BaseException:
        # A request that ends here takes no answer, not even one that came in the same instant.
        for task in running:
            if task.done() and not task.cancelled() and task.exception() is None:
                _drop(exchange, task.result())
        raise
    finally:
        losers = [task for task in running if not task.done()]
        for task in losers:
            task.cancel()
        if losers:
            await asyncio.wait(losers)


def _second(exchange: Exchange, others: tuple[Candidate, ...]) -> tuple[Candidate, Pass] | None:
    """Return the next candidate that its breaker lets through, where the allowance has a call left."""
    parts = exchange.parts
    for other in others:
        leave = parts.breakers.enter(parts.places[other.name])
        if leave is None:
            continue
        if parts.hedges.spend():
            exchange.account.faults.append(f"{other.name}: hedged")
            return other, leave
        leave.abandoned()
        return None
    return None


async def _first(exchange: Exchange, running: list[asyncio.Task[Answer]]) -> Answer:
    """Return the first answer that is none of the faults; raises the first candidate's fault at the end."""
    waiting = set(running)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        good = [task for task in running if task in done and task.exception() is None]
        for late in good[1:]:
            _drop(exchange, late.result())
        if good:
            return good[0].result()
    return running[0].result()  # raises its fault


def _drop(exchange: Exchange, answer: Answer) -> None:
    exchange.account.unseen += (answer.candidate,)
    if answer.reply.chunks is not None:
        answer.reply.chunks.close()
    answer.leave.abandoned()
