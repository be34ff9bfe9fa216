"""This module sends a sequencer's answer: while it is written where it can be told, else when it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.base import Call, Reply
from turnout.gateway.providers.written import ChatEvents, Usage, usage_of, whole_reply
from turnout.gateway.reply import header_text, reply_headers, send_body, start_events
from turnout.gateway.sequence_build import Sequence
from turnout.gateway.sequence_end import finish_of
from turnout.sequential.live_client import Hear
from turnout.sequential.trace import Ended, Trace

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange

_CHARS_PER_EVENT = 24


@final
class AnswerSender:
    """Sends the one answer of a request.

    Parameters
    ----------
    exchange:
        The request.
    sequence:
        Who answers it.
    """

    def __init__(self, exchange: Exchange, sequence: Sequence) -> None:
        self._exchange = exchange
        self._sequence = sequence
        self._call = Call(
            request=exchange.request,
            candidate=Candidate(model=sequence.name),
            model=sequence.name,
            decision_id=exchange.account.decision_id,
        )
        self._events = ChatEvents(self._call)
        self._writer = exchange.protocol.writer(exchange.request)
        self._told: str | None = None
        """What the client has of the answer; None before the response began."""

    def listen(self, trace: Trace) -> Hear | None:
        """Return who hears the next thought, for a client that streams and has nothing of an answer yet."""
        if not self._exchange.request.is_stream or self._told is not None:
            return None
        watch = self._sequence.sequencer.watch(trace)
        if watch is None:
            return None

        async def hear(piece: str) -> None:
            if new := watch.feed(piece):
                await self._begin(trace)
                # In parts, too, where an upstream that does not stream told all of it at once.
                for piece in pieces(new):
                    await self._tell(piece)

        return hear

    async def finish(self, text: str, trace: Trace) -> None:
        """Send the answer, or what is left of it; raises `ApiError` where another one was begun."""
        account, request, spent = self._exchange.account, self._exchange.request, self._exchange.account.spent
        if spent is None:
            raise RuntimeError("an answer is sent after it was accounted for")
        if self._told is not None and not text.startswith(self._told):
            raise _withdrawn(self._sequence.name)
        finish = finish_of(trace)
        usage = usage_of(spent.input_tokens or 0, spent.output_tokens or 0)
        if not request.is_stream:
            chat = whole_reply(self._call, text, finish=finish, usage=usage)
            reply = self._exchange.protocol.from_chat(chat, request, self._sequence.name)
            account.first_byte_s = account.elapsed_s()
            account.end(200)
            account.is_sending = True
            await send_body(
                self._exchange.send, reply, self._headers(trace), is_estimated=account.is_estimated
            )
            return
        account.end(200)
        await self._begin(trace)
        for piece in pieces(text[len(self._told or "") :]):
            await self._tell(piece)
        await self._end(finish, usage if request.asks_usage or self._writer is not None else None)

    async def cut(self, error: ApiError) -> None:
        """End a stream that has begun with an error event; raises the error where none has."""
        if self._told is None:
            raise error
        self._exchange.account.end(error.status, error.code)
        event = self._exchange.protocol.error_event(error.message, code=error.code)
        await self._send(event, is_last=True)

    async def _begin(self, trace: Trace) -> None:
        """Open the stream, once; what is not known yet has no header."""
        if self._told is not None:
            return
        account, self._told = self._exchange.account, ""
        account.first_byte_s = account.elapsed_s()
        account.is_sending = True
        is_estimated = account.spent is not None and account.is_estimated
        reply = Reply(status=200, headers=self._events.headers)
        await start_events(self._exchange.send, reply, self._headers(trace), is_estimated=is_estimated)
        await self._write(self._events.begin())

    async def _tell(self, text: str) -> None:
        self._told = (self._told or "") + text
        await self._write(self._events.piece(text))

    async def _end(self, finish: str, usage: Usage | None) -> None:
        await self._write(self._events.end(finish, usage))
        await self._send(b"" if self._writer is None else self._writer.end(), is_last=True)

    async def _write(self, chat: bytes) -> None:
        """Send events of chat, in the client's own API."""
        told = chat if self._writer is None else self._writer.feed(chat)
        if told:
            await self._send(told)

    async def _send(self, body: bytes, *, is_last: bool = False) -> None:
        await self._exchange.send({"type": "http.response.body", "body": body, "more_body": not is_last})

    def _headers(self, trace: Trace) -> Headers:
        """Return the headers that say how the answer came about."""
        account, name = self._exchange.account, self._sequence.name
        headers: Headers = [
            *reply_headers(account),
            (b"x-turnout-model", header_text(name)),
            (b"x-turnout-reason", header_text(type(self._sequence.sequencer).__name__)),
            (b"x-turnout-calls", b"%d" % trace.num_calls),
        ]
        if isinstance(trace.last, Ended):
            headers.append((b"x-turnout-ended", header_text(trace.last.how)))
        if account.spent is not None and account.spent.usd is not None:
            headers.append((b"x-turnout-usd", f"{account.spent.usd:.6g}".encode()))
        return headers


def pieces(text: str) -> list[str]:
    """Cut a text into parts for the events of a stream."""
    return [text[at : at + _CHARS_PER_EVENT] for at in range(0, len(text), _CHARS_PER_EVENT)]


def _withdrawn(name: str) -> ApiError:
    what = f"the sequencer {name!r} began an answer and did not stand by it"
    message = sentence(
        what, allowed="one answer, to its end", do="what was received is void; ask again, or without a stream"
    )
    return ApiError(502, message, code="answer_withdrawn", kind="upstream_error")
