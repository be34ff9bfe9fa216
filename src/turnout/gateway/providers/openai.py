"""This module asks any server that speaks the OpenAI API, and hands its bytes on as they arrive."""

from __future__ import annotations

import asyncio
import os
import time
from typing import final

import aiohttp
import msgspec

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, sentence
from turnout.gateway.config import OpenAISettings
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.base import Call, Chunks, Fault, Provider, Reply
from turnout.gateway.providers.body import upstream_body, upstream_model
from turnout.gateway.retry import read_retry_after
from turnout.gateway.stream import starts_with_error

KEEP_ALIVE_S = 15.0
"""Seconds an idle connection is kept; servers close theirs after 5 to 75, and a closed one costs a retry."""

_READ_BYTES = 2**16
_OVERLOADED = (503, 529)
_PASSED = ("content-type", "retry-after", "retry-after-ms", "x-request-id", "x-should-retry")
_PASSED_PREFIXES = ("x-ratelimit-", "openai-")


def read_key(name: str, settings: OpenAISettings) -> str | None:
    """Return the key that `api_key_env` refers to; raises `ConfigError` when the variable is not set."""
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
class OpenAIProvider(Provider):
    """Passes requests to an upstream.

    Parameters
    ----------
    name:
        The provider's name in the configuration.
    settings:
        Base URL and time limits.
    api_key:
        The key itself; it goes into the `authorization` header and nowhere else.
    """

    def __init__(self, *, name: str, settings: OpenAISettings, api_key: str | None) -> None:
        super().__init__(name=name)
        self.settings = settings
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None

    def model_name(self, candidate: Candidate) -> str:
        """Return the upstream's name, with the adapter as `adapter_model` writes it."""
        return upstream_model(candidate, self.settings)

    async def start(self) -> None:
        """Open the connection pool; the number of connections is bounded by the requests in flight."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_s),
            read_bufsize=_READ_BYTES,
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, call: Call) -> Reply:
        """Send the request; a stream's reply is returned once its first bytes are there."""
        body = upstream_body(call, self.settings)
        try:
            async with asyncio.timeout(self.settings.first_byte_s):
                response = await self._send(body, _headers_of(self._headers, call))
                return await self._reply(call, response)
        except TimeoutError as error:
            raise self._slow(error) from error
        except aiohttp.ClientPayloadError as error:
            raise cut(self.name, error, may_fall_back=True) from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(str(error.os_error.strerror or error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(type(error).__name__) from error

    async def _send(self, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send once more where a kept connection was closed under us before any byte came back."""
        if self._session is None:
            raise RuntimeError(f"provider {self.name!r} was asked before it was started")
        try:
            return await self._post(self._session, body, headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._post(self._session, body, headers)

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        return await session.post(self._url, data=body, headers=headers, allow_redirects=False)

    async def _reply(self, call: Call, response: aiohttp.ClientResponse) -> Reply:
        is_events = response.content_type == "text/event-stream"
        try:
            if response.status == 200 and call.request.is_stream and is_events:
                first = await response.content.readany()
                self._check_first(first)
                chunks = _Arriving(self.name, response, first, self.settings.idle_s)
                return Reply(status=200, headers=_passed(response), chunks=chunks)
            body = await response.read()
        except BaseException:
            response.close()
            raise
        if response.status == 200 and not _is_object(body):
            raise self._no_answer(body)
        reply = Reply(status=response.status, headers=_passed(response), body=body)
        if response.status == 429 or response.status >= 500 or 300 <= response.status < 400:
            raise self._refused(reply)
        return reply

    def _no_answer(self, body: bytes) -> Fault:
        """Return the fault of a reply that says 200 and is no JSON object, as a proxy's error page is."""
        got = body[:60].decode("utf-8", "replace")
        message = sentence(
            f"the upstream {self.name!r} answered 200 without an answer",
            allowed="a JSON object",
            got=got,
            do=f"check that providers.{self.name}.base_url is an OpenAI-compatible API",
        )
        return Fault(ApiError(502, message, code="upstream_error", kind="upstream_error"))

    def _check_first(self, first: bytes) -> None:
        """Raise where a stream ends, or fails, before it has begun: then the next candidate can be asked."""
        if not first:
            raise cut(self.name, EOFError(), may_fall_back=True)
        if starts_with_error(first):
            got = first[:120].decode("utf-8", "replace")
            message = sentence(
                f"the upstream {self.name!r} began its stream with an error",
                allowed="an event with a choice",
                got=got,
                do="read the upstream's own message, or ask again",
            )
            raise Fault(ApiError(502, message, code="upstream_error", kind="upstream_error"))

    def _slow(self, error: TimeoutError) -> Fault:
        if isinstance(error, aiohttp.ServerTimeoutError):
            what, limit = "did not accept a connection in time", "connect_s"
        else:
            what, limit = "did not send a first byte in time", "first_byte_s"
        message = sentence(
            f"the upstream {self.name!r} {what}",
            allowed=f"{getattr(self.settings, limit):g} s",
            do=f"ask again, or raise providers.{self.name}.{limit}",
        )
        return Fault(ApiError(504, message, code="upstream_timeout", kind="timeout_error"))

    def _unreachable(self, got: str) -> Fault:
        message = sentence(
            f"the upstream {self.name!r} cannot be reached",
            allowed=f"a server at providers.{self.name}.base_url",
            got=got,
            do="check that it runs there",
        )
        error = ApiError(503, message, code="upstream_unreachable", kind="upstream_error")
        return Fault(error, may_retry=True)

    def _refused(self, reply: Reply) -> Fault:
        got = f"status {reply.status}: {reply.body[:80].decode('utf-8', 'replace')}"
        message = sentence(
            f"the upstream {self.name!r} failed",
            allowed="an answer or a client error",
            got=got,
            do="ask again later" if reply.status == 429 else "read the upstream's log, or ask again",
        )
        retry_after_s = read_retry_after(reply.headers, time.time())
        if reply.status == 429:
            error = ApiError(429, message, code="upstream_rate_limited", kind="rate_limit_error")
            return Fault(error, may_retry=True, reply=reply, is_limit=True, retry_after_s=retry_after_s)
        return Fault(
            ApiError(502, message, code="upstream_error", kind="upstream_error"),
            may_retry=reply.status >= 500,
            is_limit=reply.status in _OVERLOADED and retry_after_s is not None,
            retry_after_s=retry_after_s,
        )


@final
class _Arriving(Chunks):
    def __init__(self, name: str, response: aiohttp.ClientResponse, first: bytes, idle_s: float) -> None:
        self._name = name
        self._response = response
        self._first = first
        self._idle_s = idle_s

    async def read(self) -> bytes:
        if self._first:
            block, self._first = self._first, b""
            return block
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise cut(self._name, error, may_fall_back=False) from error

    def close(self) -> None:
        # A response that was read to its end has given its connection back already; closing it is free.
        self._response.close()


def cut(name: str, error: Exception, *, may_fall_back: bool) -> Fault:
    """Return the fault of an upstream that stopped in the middle of its answer."""
    message = sentence(
        f"the upstream {name!r} stopped in the middle of its answer",
        allowed="an answer that comes to its end",
        got=type(error).__name__,
        do="what was received is incomplete; ask again",
    )
    return Fault(
        ApiError(502, message, code="upstream_cut", kind="upstream_error"), may_fall_back=may_fall_back
    )


def _headers_of(own: dict[str, str], call: Call) -> dict[str, str]:
    """Return the provider's headers with those that rules add; its own win."""
    if not call.headers:
        return own
    return {name.decode(): value.decode("latin-1") for name, value in call.headers} | own


def _passed(response: aiohttp.ClientResponse) -> Headers:
    """Return the response headers that concern the client."""
    return [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in response.headers.items()
        if name.lower() in _PASSED or name.lower().startswith(_PASSED_PREFIXES)
    ]


def _is_object(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
