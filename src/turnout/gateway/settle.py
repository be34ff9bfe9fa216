"""This module is the step that answers: it passes a reply on and accounts for it."""

from __future__ import annotations

from turnout.core.errors import sentence
from turnout.gateway.account import Account
from turnout.gateway.errors import ApiError
from turnout.gateway.exchange import Exchange
from turnout.gateway.providers.base import Chunks, Fault, Reply
from turnout.gateway.quick_cycle import QuickCycle
from turnout.gateway.relay import Relay, note_error, pin_made
from turnout.gateway.reply import reply_headers, send_body, start_events
from turnout.gateway.stream import read_usage
from turnout.gateway.wire import is_given

_TORN = b"\n\n"
"""Ends an event that was forwarded in parts, so that the next one is seen."""


async def send_whole(exchange: Exchange, reply: Reply) -> None:
    """Send a whole answer; its row is complete before its first byte leaves."""
    account = exchange.account
    is_answer = reply.status == 200 and account.served is not None
    if is_answer:
        account.usage, estimate = exchange.protocol.read_answer(reply)
        if made := exchange.protocol.made(reply.body):
            await pin_made(exchange, made, account.usage)
        if estimate or account.usage is None or account.usage.completion_tokens is None:
            account.output_estimate = estimate
        exchange.unfinished = exchange.protocol.unfinished(reply.body)
    exchange.end(reply.status, None if reply.status < 400 else f"upstream_{reply.status}")
    _tell_breaker(exchange, is_good=True)
    account.is_sending = True
    is_estimated = is_answer and account.is_estimated
    await send_body(exchange.send, reply, reply_headers(account), is_estimated=is_estimated)


async def forward(exchange: Exchange, reply: Reply, chunks: Chunks) -> None:
    """Pass a stream on and account for it; a cut ends in an error event, never in a false [DONE]."""
    account, keep = exchange.account, exchange.keep
    relay = Relay(exchange, reply.status)
    scanner = relay.scanner
    fault: ApiError | None = None
    try:
        relay.cycle = await _begin(exchange, reply)
        if keep is not None:
            keep.watch(scanner)
        await chunks.pour(relay.take_in)
        fault = None if scanner.is_complete else _cut(account)
    except Fault as error:
        fault = None if scanner.is_done else error.error
    finally:
        chunks.close()
        account.read_stream(scanner, read_usage(chunks.reported))
        if not scanner.is_done and is_given(exchange.request.members, "background"):
            exchange.unfinished = scanner.response_id
        if keep is not None:
            keep.stop()
    _tell_breaker(exchange, is_good=fault is None and not scanner.has_error)
    if fault is None:
        exchange.end(reply.status, note_error(account) if scanner.has_error else None)
        return
    account.faults.append(f"{account.provider}: {fault.code}")
    exchange.end(fault.status, fault.code)
    event = exchange.protocol.error_event(fault.message, code=fault.code)
    body = _TORN + event if scanner.is_torn else event
    await exchange.send({"type": "http.response.body", "body": body, "more_body": True})


async def send_late(exchange: Exchange, reply: Reply) -> None:
    """End a stream that was begun before it was known that no answer would come."""
    account = exchange.account
    account.end(reply.status, f"upstream_{reply.status}")
    _tell_breaker(exchange, is_good=True)
    message = sentence(
        f"the upstream {account.provider!r} answered without a stream",
        allowed="server-sent events",
        got=f"status {reply.status}: {reply.body[:300].decode('utf-8', 'replace')}",
        do="read the upstream's own message",
    )
    await send_last(exchange, message, code=f"upstream_{reply.status}")


async def send_last(exchange: Exchange, message: str, *, code: str) -> None:
    """End a stream with an error event."""
    event = exchange.protocol.error_event(message, code=code)
    body = _TORN + event if exchange.keep is not None and exchange.keep.is_torn else event
    await exchange.send({"type": "http.response.body", "body": body, "more_body": False})


async def _begin(exchange: Exchange, reply: Reply) -> QuickCycle | None:
    """Open the response, unless a comment has done so already; return what `start_events` does."""
    if exchange.keep is not None:
        await exchange.keep.settle()
        if exchange.keep.has_begun:
            return None
    exchange.account.is_sending = True
    headers = reply_headers(exchange.account)
    return await start_events(exchange.send, reply, headers, is_estimated=exchange.account.is_replay)


def _tell_breaker(exchange: Exchange, *, is_good: bool) -> None:
    """Tell the breaker of whoever served how a stream ended."""
    if exchange.leave is not None:
        exchange.leave.succeeded() if is_good else exchange.leave.failed()


def _cut(account: Account) -> ApiError:
    message = sentence(
        f"the upstream {account.provider!r} ended its stream before the answer was complete",
        allowed="a stream that ends with a finish reason or [DONE]",
        do="what was received is incomplete; ask again",
    )
    return ApiError(502, message, code="upstream_cut", kind="upstream_error")
