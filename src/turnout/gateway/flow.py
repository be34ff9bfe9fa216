"""This module takes one request from bytes to bytes: admit, parse, decide, ask, answer, account."""

from __future__ import annotations

import asyncio
import logging

from turnout.core.errors import sentence
from turnout.gateway.account import CLIENT_LEFT
from turnout.gateway.admission import Admission, Hold
from turnout.gateway.admit import ledger_full
from turnout.gateway.answer_again import answer_again
from turnout.gateway.ask import read_request
from turnout.gateway.attempt import ask_down
from turnout.gateway.beside import beside
from turnout.gateway.body import read_body
from turnout.gateway.disconnect import CANCELLED_IS_GONE, Attended, ClientGoneError
from turnout.gateway.errors import ApiError, internal_error
from turnout.gateway.exchange import Exchange
from turnout.gateway.keepalive import KeepAlive
from turnout.gateway.obey import obey
from turnout.gateway.pins import going_on, keep_to
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import reply_headers, send_body
from turnout.gateway.select import Selection
from turnout.gateway.settle import forward, send_last, send_late, send_whole
from turnout.gateway.unfinished import follow

logger = logging.getLogger(__name__)

_LONG_BYTES = 2**18
"""A longer body is read beside the event loop: it may have a hundred thousand turns."""


async def serve_exchange(exchange: Exchange) -> None:
    """Serve one request; whatever happens, the ledger gets exactly one row of it.

    Only a request that is refused because the ledger is full has none: rows in memory are bounded.
    """
    parts = exchange.parts
    parts.running.count += 1
    try:
        await _attend(exchange)
    finally:
        parts.running.count -= 1
        # It knows the exchange: together they would wait for a search for garbage.
        exchange.keep = None
        if exchange.unfinished is None:
            _close_books(exchange)
        else:
            follow(exchange, _close_books)


def _close_books(exchange: Exchange) -> None:
    """Give back what is left of the budget, and count a request that has ended."""
    parts = exchange.parts
    if exchange.hold is not None and parts.admission is not None:
        parts.admission.leave(exchange.hold, exchange.account)
    parts.metrics.observe(exchange.account)
    if parts.telemetry is not None:
        parts.telemetry.observe(exchange)


async def _attend(exchange: Exchange) -> None:
    account = exchange.account
    if exchange.parts.ledger.is_full:
        await send_body(exchange.send, exchange.protocol.error_reply(ledger_full()), [], is_estimated=False)
        return
    try:
        body = await _read(exchange)
        await exchange.parts.gate.enter()
        try:
            await _serve(exchange, body)
        finally:
            exchange.parts.gate.leave()
            if exchange.keep is not None:
                exchange.keep.stop()
            if exchange.leave is not None:
                exchange.leave.abandoned()
    except ApiError as error:
        exchange.end(error.status, error.code)
        await _send_error(exchange, error)
    except ClientGoneError:
        exchange.end(CLIENT_LEFT, "client_left")
    except asyncio.CancelledError:
        # Nobody waits for this task to say so.
        if CANCELLED_IS_GONE in exchange.scope:
            exchange.end(CLIENT_LEFT, "client_left")
            return
        # Elsewhere only the end of a drain cancels a request.
        exchange.end(503, "shutdown")
        await _send_shutdown(exchange)
    except Exception:  # The edge: the client gets a typed failure, the log the traceback.
        logger.exception("request %s failed", account.decision_id)
        exchange.end(500, "internal_error")
        if account.is_sending and not (exchange.keep is not None and exchange.keep.has_begun):
            raise
        await _send_error(exchange, internal_error(account.decision_id))


async def _read(exchange: Exchange) -> bytes:
    """Return the body of a client that is let in; who sends it slowly has no place meanwhile."""
    parts = exchange.parts
    parts.gate.check()
    if parts.admission is not None:
        exchange.account.key = await parts.admission.recognise(exchange.headers)
    return await read_body(exchange.scope, exchange.receive, parts.config.server)


async def _serve(exchange: Exchange, body: bytes) -> None:
    parts, account, admission = exchange.parts, exchange.account, exchange.parts.admission
    given = exchange.protocol, body, parts.config.routing.alias, exchange.headers
    exchange.request = (
        read_request(*given) if len(body) <= _LONG_BYTES else await beside(read_request, *given)
    )
    if admission is not None and account.key is not None:
        exchange.hold = await admission.enter(account.key, exchange.request)
    if parts.rules is not None:
        await obey(parts.rules, exchange)
        memory = await answer_again(exchange)
        if account.status is not None:
            return
        if memory is not None:
            await _produce(exchange)
            memory.keep()
            return
    await _produce(exchange)


async def _produce(exchange: Exchange) -> None:
    """Have the request answered by who serves it."""
    parts, account, admission = exchange.parts, exchange.account, exchange.parts.admission
    sequence = parts.sequences.find(exchange.request.model)
    if sequence is not None:
        if not exchange.protocol.is_routed:
            raise _no_sequence(exchange)
        await parts.sequences.serve(sequence, exchange)
        return
    if not exchange.protocol.is_routed and exchange.request.model == parts.config.routing.alias:
        raise _not_routed(exchange)
    selection = await parts.decider.decide(exchange)
    if isinstance(selection, Reply):
        await send_whole(exchange, selection)
        return
    if exchange.request.follows:
        pin = await parts.pins.find_for(exchange.request.follows, account.tenant)
        selection = keep_to(pin, selection, known=parts.selector.known, places=parts.places)
        exchange.request = going_on(pin, exchange.request)
    if parts.prices is not None:
        selection = parts.prices.applied(selection)
    account.decide(selection)
    if admission is not None and exchange.hold is not None:
        selection = await _afford(exchange, admission, exchange.hold, selection)
    await _answer(exchange, selection)


async def _answer(exchange: Exchange, selection: Selection) -> None:
    """Ask, and send what comes; a client that leaves ends it."""
    account = exchange.account
    with Attended(exchange.receive, exchange.scope):
        if exchange.request.is_stream:
            exchange.keep = KeepAlive(exchange)
        reply = await ask_down(exchange, selection)
        account.first_byte_s = account.elapsed_s()
        if reply.chunks is not None:
            await forward(exchange, reply, reply.chunks)
    if reply.chunks is not None:
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
    elif exchange.keep is None or not await exchange.keep.ended():
        await send_whole(exchange, reply)
    else:
        await send_late(exchange, reply)


async def _afford(exchange: Exchange, admission: Admission, hold: Hold, selection: Selection) -> Selection:
    """Reserve what the answer may cost, and leave out who is too dear for what is left."""
    routing = exchange.parts.config.routing
    selection, dropped = await admission.afford(
        hold,
        exchange.request,
        selection,
        num_asked=routing.max_attempts,
        num_at_once=1 if routing.hedge_after_s is None else 2,
    )
    exchange.account.faults.extend(f"{name}: beyond_budget" for name in dropped)
    return selection


def _no_sequence(exchange: Exchange) -> ApiError:
    message = sentence(
        f"the model {exchange.request.model!r} is a sequencer and does not speak this API",
        allowed="an API of conversations, such as POST /v1/chat/completions",
        got=exchange.protocol.path,
        do="ask it there, or name another model",
    )
    return ApiError(400, message, code="not_supported", param="model")


def _not_routed(exchange: Exchange) -> ApiError:
    message = sentence(
        f"nobody is chosen for {exchange.protocol.path}: vectors of two models have nothing in common",
        allowed="the name of one model",
        got=exchange.request.model,
        do="name a model, such as one of the section 'models'",
    )
    return ApiError(400, message, code="not_routed", param="model")


async def _send_error(exchange: Exchange, error: ApiError) -> None:
    if exchange.keep is not None and await exchange.keep.ended():
        await send_last(exchange, error.message, code=error.code)
        return
    reply = exchange.protocol.error_reply(error)
    await send_body(exchange.send, reply, reply_headers(exchange.account), is_estimated=False)


async def _send_shutdown(exchange: Exchange) -> None:
    message = sentence(
        "the gateway is shutting down and could not wait for the answer",
        allowed="answers that end within server.drain_s",
        do="ask again, or raise server.drain_s",
    )
    if exchange.account.is_sending:
        await send_last(exchange, message, code="shutdown")
        return
    error = ApiError(503, message, code="shutdown", kind="server_error", headers=[(b"retry-after", b"1")])
    await _send_error(exchange, error)
