"""This module asks an upstream over HTTP and hands bytes on as they arrive; a dialect knows its language."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, sentence
from turnout.gateway.alarm import Alarm
from turnout.gateway.beside import beside, is_long
from turnout.gateway.completion import read_completion
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.arriving import Arriving
from turnout.gateway.providers.at_once import AtOnce, events_of
from turnout.gateway.providers.base import Call, Chunks, Fault, KeptCall, Provider, Reply, cut
from turnout.gateway.providers.blame import ACCOUNT, lacks_path, limited, own_fault, told_status
from turnout.gateway.providers.client import Client, ConnectTimeoutError, UnreachableError
from turnout.gateway.providers.dialect import Dialect, Outgoing
from turnout.gateway.providers.response import BrokenError, ClientError, Response
from turnout.gateway.retry import read_retry_after
from turnout.gateway.secret import read_secret
from turnout.gateway.settings_providers import UpstreamSettings
from turnout.gateway.translate.events import Translated, unread_answer
from turnout.gateway.translate.refusal import not_spoken, unreadable

logger = logging.getLogger(__name__)

_OVERLOADED = (503, 529)
_SPARE_S = 0.05
"""Before the deadline of a request, at which nothing would be passed on any more."""
_PASSED = frozenset(
    b"content-type request-id retry-after retry-after-ms x-request-id x-should-retry x-amzn-errortype"
    b" x-amzn-requestid".split()
)
_PASSED_PREFIXES = (b"x-ratelimit-", b"openai-", b"anthropic-")
_OURS = frozenset(b"openai-organization openai-project anthropic-organization-id".split())
"""Whose account it is."""
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


def read_key(name: str, settings: UpstreamSettings) -> str | None:
    """Return the key that the settings refer to; raises `ConfigError` where it is not there."""
    if settings.api_key is not None:
        return read_secret(settings.api_key, f"providers.{name}.api_key")
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            sentence(
                f"the provider {name!r} needs a key",
                allowed=f"a key in the environment variable {settings.api_key_env!r}",
                got="nothing",
                do="set it, or remove api_key_env",
            )
        )
    return key


@final
class HttpProvider(Provider):
    """Passes requests to an upstream.

    Parameters
    ----------
    name:
        The provider's name in the configuration.
    settings:
        Time limits.
    dialect:
        The upstream's language, with its address and key.
    """

    def __init__(self, *, name: str, settings: UpstreamSettings, dialect: Dialect) -> None:
        super().__init__(name=name)
        self.settings = settings
        self.dialect = dialect
        self.speaks = dialect.speaks
        self.lists_cache_writes = dialect.lists_cache_writes
        self._stream_type = dialect.stream_type.encode()
        self._client: Client | None = None

    def model_name(self, candidate: Candidate) -> str:
        """Return the upstream's name for a candidate, as the dialect writes it."""
        return self.dialect.model_name(candidate)

    async def start(self) -> None:
        """Open the client; the number of its connections is bounded by the requests in flight."""
        self._client = Client(connect_s=self.settings.connect_s)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def ask(self, call: Call) -> Coroutine[Any, Any, Reply]:
        """Send the request; a stream's reply is returned once something of an answer is there."""
        if self.dialect.rewrites and is_long(call.request.members):
            return self._ask_long(call)
        return self._ask(call, self._outgoing(call))

    async def _ask_long(self, call: Call) -> Reply:
        """Write the request beside the event loop: it may have a hundred thousand turns."""
        return await self._ask(call, await beside(self._outgoing, call))

    def _ask(self, call: Call, sent: Outgoing) -> Coroutine[Any, Any, Reply]:
        if call.headers:
            sent = msgspec.structs.replace(sent, headers=_headers_of(sent.headers, call.headers))
        return self._exchange("POST", sent, lambda response, alarm: self._reply(call, response, alarm))

    def _outgoing(self, call: Call) -> Outgoing:
        try:
            return self.dialect.outgoing(call)
        except (Fault, ApiError):
            raise
        except Exception as error:  # The edge: a field of a kind that nobody has thought of.
            logger.exception("a request could not be written for the upstream %r", self.name)
            raise unreadable("body", error) from error

    def lists_cache_reads(self, model: str) -> bool:
        """Whether what a model reads from the prompt cache costs what Anthropic's list says."""
        return self.dialect.lists_cache_reads(model)

    def keeps(self, kind: str) -> bool:
        """Whether the upstream has OpenAI's Responses, or Conversations."""
        return self.dialect.kept(KeptCall(method="GET", kind=kind)) is not None

    async def ask_kept(self, call: KeptCall) -> Reply:
        """Ask about what is kept; whatever the upstream says is the reply."""
        sent = self.dialect.kept(call)
        if sent is None:
            return await super().ask_kept(call)
        if call.headers:
            sent = msgspec.structs.replace(sent, headers=_headers_of(sent.headers, call.headers))
        return await self._exchange(call.method, sent, self._kept_reply)

    async def _kept_reply(self, response: Response, alarm: Alarm) -> Reply:
        headers = _passed(response)
        try:
            if response.status == 200 and response.content_type == self._stream_type:
                chunks = Arriving(self.name, response, await response.read_some(), self.settings.idle_s)
                return Reply(status=200, headers=headers, chunks=chunks)
            body = await response.read()
            if (
                response.status in ACCOUNT
                and (fault := own_fault(self.name, response.status, body)) is not None
            ):
                raise fault
            if response.status == 429:
                raise Fault(limited(self.name, body, headers))
            return Reply(status=response.status, headers=headers, body=body)
        except BaseException:
            response.close()
            raise

    async def _exchange(
        self, method: str, sent: Outgoing, read: Callable[[Response, Alarm], Awaitable[Reply]]
    ) -> Reply:
        """Send what is to be sent, and return what `read` makes of the response; raises `Fault`."""
        if self._client is None:
            raise RuntimeError(f"provider {self.name!r} was asked before it was started")
        alarm = Alarm(self.settings.first_byte_s)
        try:
            response = await self._client.send(method, sent.url, sent.headers, sent.body)
            try:
                return await read(response, alarm)
            except BrokenError as error:
                raise cut(self.name, error, may_fall_back=True) from error
        except ConnectTimeoutError as error:
            what = "did not accept a connection in time"
            raise self._slow(what, "connect_s", was_sent=False) from error
        except asyncio.CancelledError as error:
            if alarm.is_cause():
                what = "did not send a first byte in time"
                raise self._slow(what, "first_byte_s", was_sent=True) from error
            raise
        except ClientError as error:
            was_sent = not isinstance(error, UnreachableError)
            raise self._unreachable(str(error), was_sent=was_sent) from error
        finally:
            alarm.stop()

    async def _reply(self, call: Call, response: Response, alarm: Alarm) -> Reply:
        is_events = response.content_type == self._stream_type
        try:
            if response.status == 200 and call.request.is_stream and is_events:
                first = await self._opening(response, alarm, call.deadline_s - _SPARE_S)
                return self._streamed(call, response, first)
            body = await response.read()
        except BaseException:
            response.close()
            raise
        completion, status = None, response.status
        if status == 200:
            completion = read_completion(body) if call.protocol == "chat" else None
            if completion is None and not _is_object(body):
                raise self._no_answer(body)
            status = told_status(body) or 200
        if call.protocol == "compact" and lacks_path(status, body):
            raise not_spoken("/v1/responses/compact")
        if status in (400, 422) and _is_about_usage(call, body):
            return await self.ask(msgspec.structs.replace(call, takes_usage=False))
        headers = self._headers(call, response)
        reply = Reply(status=status, headers=headers, body=body, completion=completion)
        if status == 429 or status >= 500 or 200 < status < 400:
            raise self._refused(reply, response.status)
        if (
            reply.status >= 400
            and (fault := own_fault(self.name, reply.status, body, call.model)) is not None
        ):
            raise fault
        try:
            reply = self.dialect.whole(call, reply)
        except Fault:
            raise
        except Exception as error:  # The edge: an answer of a kind that nobody has thought of.
            raise unread_answer(self.name, error) from error
        return self._at_once(call, reply) if status == 200 and call.request.is_stream else reply

    def _at_once(self, call: Call, reply: Reply) -> Reply:
        """Return a whole answer as the stream that was asked for; raises `Fault` where it is none."""
        events = events_of(call.protocol, reply.body)
        if events is None:
            raise self._no_answer(reply.body)
        headers = [_EVENTS, *(header for header in reply.headers if header[0] != b"content-type")]
        return Reply(status=200, headers=headers, chunks=AtOnce(events))

    def _streamed(self, call: Call, response: Response, first: bytes) -> Reply:
        """Return the reply of a stream that has begun, in the client's language."""
        headers = self._headers(call, response)
        chunks: Chunks = Arriving(self.name, response, first, self.settings.idle_s)
        translator = self.dialect.translator(call)
        if translator is not None:
            chunks = Translated(chunks, translator, upstream=self.name)
            headers = [_EVENTS, *(header for header in headers if header[0] != b"content-type")]
        return Reply(status=200, headers=headers, chunks=chunks)

    def _headers(self, call: Call, response: Response) -> Headers:
        return [*_passed(response), *(self.dialect.added(call) if response.status == 200 else [])]

    def _no_answer(self, body: bytes) -> Fault:
        """Return the fault of a reply that says 200 and is no JSON object, as a proxy's error page is."""
        got = body[:60].decode("utf-8", "replace")
        message = sentence(
            f"the upstream {self.name!r} answered 200 without an answer",
            allowed="a JSON object",
            got=got,
            do=f"check that providers.{self.name}.base_url is the API that its kind says",
        )
        error = ApiError(502, message, code="upstream_error", kind="upstream_error")
        return Fault(error, is_charge_unknown=True)

    async def _opening(self, response: Response, alarm: Alarm, until_s: float) -> bytes:
        """Return the bytes of a stream up to the first that says something of an answer.

        Raises `Fault` where it ends, or fails, before: then the next candidate can be asked. One that is
        still silent when the time is up is passed on as it is.
        """
        held = await response.read_some()
        block = held
        try:
            while block:
                opening = self.dialect.opening(held)
                if opening.look == "begun":
                    return held
                if opening.look == "failed":
                    raise self._failed(opening.error)
                alarm.hasten(until_s)
                block = await response.read_some()
                held += block
        except asyncio.CancelledError:
            if alarm.is_cause():
                return held
            raise
        raise cut(self.name, EOFError(), may_fall_back=True)

    def _failed(self, error: bytes) -> Fault:
        message = sentence(
            f"the upstream {self.name!r} began its stream with an error",
            allowed="an event with a choice",
            got=error[:120].decode("utf-8", "replace"),
            do="read the upstream's own message, or ask again",
        )
        return Fault(ApiError(502, message, code="upstream_error", kind="upstream_error"))

    def _slow(self, what: str, limit: str, *, was_sent: bool) -> Fault:
        message = sentence(
            f"the upstream {self.name!r} {what}",
            allowed=f"{getattr(self.settings, limit):g} s",
            do=f"ask again, or raise providers.{self.name}.{limit}",
        )
        error_told = ApiError(504, message, code="upstream_timeout", kind="timeout_error")
        return Fault(error_told, is_charge_unknown=was_sent)

    def _unreachable(self, got: str, *, was_sent: bool) -> Fault:
        message = sentence(
            f"the upstream {self.name!r} cannot be reached",
            allowed=f"a server at providers.{self.name}.base_url",
            got=got,
            do="check that it runs there",
        )
        error = ApiError(503, message, code="upstream_unreachable", kind="upstream_error")
        return Fault(error, may_retry=True, is_charge_unknown=was_sent)

    def _refused(self, reply: Reply, status: int) -> Fault:
        got = f"status {status}: {reply.body[:80].decode('utf-8', 'replace')}"
        message = sentence(
            f"the upstream {self.name!r} failed",
            allowed="an answer or a client error",
            got=got,
            do="read the upstream's log, or ask again",
        )
        retry_after_s = read_retry_after(reply.headers, time.time())
        if reply.status == 429:
            error = limited(self.name, reply.body, reply.headers)
            return Fault(error, may_retry=True, is_limit=True, retry_after_s=retry_after_s)
        return Fault(
            ApiError(502, message, code="upstream_error", kind="upstream_error"),
            may_retry=reply.status >= 500,
            is_limit=reply.status in _OVERLOADED and retry_after_s is not None,
            retry_after_s=retry_after_s,
            # Whoever said 200 has begun an answer.
            is_charge_unknown=status < 300,
        )


def _headers_of(own: Mapping[str, str], besides: tuple[tuple[bytes, bytes], ...]) -> Mapping[str, str]:
    """Return the provider's headers with those that are sent besides them; its own win."""
    return {name.decode(): value.decode("latin-1") for name, value in besides} | dict(own)


def _passed(response: Response) -> Headers:
    """Return the response headers that concern the client."""
    return [
        (name, value)
        for name, value in response.headers
        if name in _PASSED or (name.startswith(_PASSED_PREFIXES) and name not in _OURS)
    ]


def _is_about_usage(call: Call, body: bytes) -> bool:
    """Whether an upstream refuses the option that asks for usage, which the client never sent."""
    is_ours = call.request.is_stream and call.takes_usage and "stream_options" not in call.request.members
    return is_ours and b"stream_options" in body


class _Object(msgspec.Struct):
    """Any JSON object."""


_object_decoder = msgspec.json.Decoder(_Object)


def _is_object(body: bytes) -> bool:
    try:
        _object_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
