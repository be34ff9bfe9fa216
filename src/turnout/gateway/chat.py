"""This module takes one chat request from bytes to bytes: decide, ask down the ranked list, account."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.errors import sentence
from turnout.gateway.account import CLIENT_LEFT, Account, estimate_tokens
from turnout.gateway.body import read_body
from turnout.gateway.completion import parse_completion
from turnout.gateway.config import Config
from turnout.gateway.disconnect import Attended, ClientGoneError, Receive, Scope, Send
from turnout.gateway.errors import ApiError, internal_error
from turnout.gateway.ledger import Ledger
from turnout.gateway.providers.base import Call, Chunks, Fault, Provider, Reply
from turnout.gateway.reply import reply_headers, send_body, send_error, start_events
from turnout.gateway.select import Selection, Selector, read_goal
from turnout.gateway.sequence import SequenceHandler
from turnout.gateway.sequence_build import build_sequences
from turnout.gateway.stream import EventScanner, error_event
from turnout.gateway.wire import ChatRequest, parse_chat

INLINE_CHARS = 16_384
"""Texts up to this length are decided on the event loop; longer ones in a thread beside it."""

_BAD_EVENT = "upstream_bad_event"

logger = logging.getLogger(__name__)


@final
class ChatHandler:
    """Answers POST /v1/chat/completions.

    Parameters
    ----------
    config, selector, providers, ledger, clock:
        The parts; providers by the name that the configuration gives them.
    """

    def __init__(
        self,
        *,
        config: Config,
        selector: Selector,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self.config = config
        self.selector = selector
        self.ledger = ledger
        self.clock = clock
        candidates = selector.deployment.candidates
        self._upstream = {candidate.name: self._place(candidate, providers) for candidate in candidates}
        self.sequences = SequenceHandler(
            sequences=build_sequences(config, candidates, providers, self._upstream),
            seed=config.routing.seed,
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever happens, the ledger gets exactly one row of it.

        Only a request that is refused because the ledger is full has none: rows in memory are bounded.
        """
        if self.ledger.is_full:
            await send_error(send, _ledger_full(), [])
            return
        account = Account(ledger=self.ledger, clock=self.clock, keep_text=self.config.ledger.keep_text)
        try:
            await self._serve(scope, receive, send, account)
        except ApiError as error:
            account.end(error.status, error.code)
            await send_error(send, error, reply_headers(account))
        except ClientGoneError:
            account.end(CLIENT_LEFT, "client_left")
        except asyncio.CancelledError:
            # Only the end of a drain cancels a request, and nobody waits for this task to say so.
            account.end(503, "shutdown")
            await _send_shutdown(send, account)
        except Exception:  # The edge: the client gets a typed failure, the log the traceback.
            logger.exception("request %s failed", account.decision_id)
            account.end(500, "internal_error")
            if account.is_sending:
                raise
            await send_error(send, internal_error(account.decision_id), reply_headers(account))

    async def _serve(self, scope: Scope, receive: Receive, send: Send, account: Account) -> None:
        body = await read_body(receive, self.config.server.max_body_mb)
        request = account.request = parse_chat(body)
        if (sequence := self.sequences.find(request.model)) is not None:
            await self.sequences.serve(sequence, scope, receive, send, account)
            return
        selection = await self._select(request, scope, account)
        account.decide(selection)
        async with Attended(receive):
            reply = await self._ask(request, selection, account)
            account.first_byte_s = account.elapsed_s()
            if reply.chunks is not None:
                await self._forward(reply, reply.chunks, send, account)
        if reply.chunks is None:
            await self._send_whole(reply, send, account)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _select(self, request: ChatRequest, scope: Scope, account: Account) -> Selection:
        goal = read_goal(scope["headers"])
        query = request.query(account.decision_id)
        if request.text is None or len(request.text) <= INLINE_CHARS:
            return self.selector.choose(request, query, goal)
        return await asyncio.to_thread(self.selector.choose, request, query, goal)

    async def _ask(self, request: ChatRequest, selection: Selection, account: Account) -> Reply:
        """Ask down the ranked list until somebody answers; raises `ApiError` where nobody does."""
        last: Fault | None = None
        for candidate in selection.ranked[: self.config.routing.max_attempts]:
            provider, model = self._upstream[candidate.name]
            account.attempts += 1
            account.provider, account.is_replay = provider.name, provider.is_replay
            call = Call(request=request, candidate=candidate, model=model, decision_id=account.decision_id)
            try:
                reply = await provider.ask(call)
            except Fault as fault:
                last = fault
                account.faults.append(f"{candidate.name}: {fault.error.code}")
                if not fault.may_fall_back:
                    break
                continue
            except asyncio.CancelledError:
                if call.work.output_tokens is not None:
                    # Nobody waits any more, but the prompt was read and tokens were written.
                    account.served, account.output_estimate = candidate, call.work.output_tokens
                raise
            account.served = candidate
            return reply
        if last is None:
            raise RuntimeError("a selection ranks at least one candidate")
        if last.reply is not None:
            return last.reply
        if account.attempts > 1:
            # Others were asked already: a client that tries again on its own would multiply the load.
            last.error.headers.append((b"x-should-retry", b"false"))
        raise last.error from last

    async def _forward(self, reply: Reply, chunks: Chunks, send: Send, account: Account) -> None:
        """Pass a stream on and account for it; a cut ends in an error event, never in a false [DONE]."""
        asks_usage = account.request is not None and account.request.asks_usage
        scanner = EventScanner(strip_usage=not asks_usage)
        fault: ApiError | None = None
        try:
            account.is_sending = True
            await start_events(send, reply, reply_headers(account), is_estimated=account.is_replay)
            while block := await chunks.read():
                if whole := scanner.feed(block):
                    await send({"type": "http.response.body", "body": whole, "more_body": True})
                if (
                    scanner.has_bad_event
                    and (bad := f"{account.provider}: {_BAD_EVENT}") not in account.faults
                ):
                    account.faults.append(bad)
                if scanner.is_done:
                    # Clients may leave at [DONE], and upstreams may hang up: the answer is complete.
                    account.read_stream(scanner)
                    account.end(reply.status)
            fault = None if scanner.is_complete else _cut(account)
        except Fault as error:
            fault = None if scanner.is_done else error.error
        finally:
            chunks.close()
            account.read_stream(scanner)
        if fault is None:
            account.end(reply.status, "upstream_error_event" if scanner.has_error else None)
            return
        account.faults.append(f"{account.provider}: {fault.code}")
        account.end(fault.status, fault.code)
        event = error_event(fault.message, code=fault.code)
        await send({"type": "http.response.body", "body": event, "more_body": True})

    async def _send_whole(self, reply: Reply, send: Send, account: Account) -> None:
        is_answer = reply.status == 200 and account.served is not None
        if is_answer:
            self._read_usage(reply, account)
        account.end(reply.status, None if reply.status < 400 else f"upstream_{reply.status}")
        account.is_sending = True
        is_estimated = is_answer and account.is_estimated
        await send_body(send, reply, reply_headers(account), is_estimated=is_estimated)

    def _read_usage(self, reply: Reply, account: Account) -> None:
        try:
            completion = parse_completion(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        account.usage = completion.usage
        if account.is_estimated:
            texts = [choice.message.content or "" for choice in completion.choices if choice.message]
            account.output_estimate = sum(estimate_tokens(text) for text in texts)

    def _place(self, candidate: Candidate, providers: Mapping[str, Provider]) -> tuple[Provider, str]:
        """Return who serves a candidate, and under which name."""
        provider = providers[self.config.provider_of(candidate.name)]
        own = self.config.candidates.get(candidate.name)
        if own is not None and own.model is not None:
            return provider, own.model
        return provider, provider.model_name(candidate)


def _cut(account: Account) -> ApiError:
    message = sentence(
        f"the upstream {account.provider!r} ended its stream before the answer was complete",
        allowed="a stream that ends with a finish reason or [DONE]",
        do="what was received is incomplete; ask again",
    )
    return ApiError(502, message, code="upstream_cut", kind="upstream_error")


async def _send_shutdown(send: Send, account: Account) -> None:
    message = sentence(
        "the gateway is shutting down and could not wait for the answer",
        allowed="answers that end within server.drain_s",
        do="ask again, or raise server.drain_s",
    )
    if account.is_sending:
        event = error_event(message, code="shutdown")
        await send({"type": "http.response.body", "body": event, "more_body": False})
        return
    error = ApiError(503, message, code="shutdown", kind="server_error", headers=[(b"retry-after", b"1")])
    await send_error(send, error, reply_headers(account))


def _ledger_full() -> ApiError:
    message = sentence(
        "the ledger cannot be written and holds as many rows as it may",
        allowed="at most ledger.max_pending rows that wait for the disk",
        do="make room on its disk; no request is served that could not be accounted",
    )
    headers = [(b"retry-after", b"5")]
    return ApiError(503, message, code="ledger_unavailable", kind="server_error", headers=headers)
