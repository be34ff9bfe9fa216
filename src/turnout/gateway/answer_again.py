"""This module is the step that answers from a cache, and the one that keeps an answer as it passes by.

What is given again are the bytes that the first client got, in the headers of this request: nobody is asked
and nothing is charged. Only answers that came whole are kept.
"""

from __future__ import annotations

import asyncio
import re
from typing import final

from turnout.gateway.account import Spent
from turnout.gateway.cache import AnswerCache, Asked, Hit, Kept, Vector
from turnout.gateway.cache_key import asked_of, may_keep, may_read
from turnout.gateway.disconnect import Message, Send
from turnout.gateway.exchange import Exchange
from turnout.gateway.explore import EXPLORED
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import header_text, reply_headers, send_body, start_events

CACHE = "cache"
"""The provider, and the reason, of an answer that was given again."""

_WITHHELD = re.compile(
    rb'"(?:finish|stop)_reason"\s*:\s*"(?:content_filter|refusal|error)"|"error"\s*:\s*\{|"status"\s*:\s*"failed"'
)
"""What an answer says that was kept back, or failed; within a text the quotes would be escaped."""
_HEADER = b"x-turnout-cache"


async def answer_again(exchange: Exchange) -> Memory | None:
    """Answer from the cache that is in force; return what keeps the answer that is still to come.

    None where there is nothing to keep: no cache is in force, or the request has been answered.
    """
    ruling = exchange.ruling
    cache = None if ruling is None else ruling.cache
    if ruling is None or cache is None:
        return None
    asked = asked_of(exchange, ruling, across_tenants=cache.settings.across_tenants)
    if asked is None or not may_keep(exchange):
        return None
    hit = cache.exact(asked) if may_read(exchange) else None
    unit_F: Vector | None = None
    if hit is None:
        unit_F = await asyncio.to_thread(cache.vector, asked) if cache.is_slow else cache.vector(asked)
        if unit_F is not None and may_read(exchange):
            hit = cache.near(asked, unit_F)
    if hit is not None:
        await _give(exchange, hit)
        return None
    exchange.account.added_headers += ((_HEADER, b"miss"),)
    return Memory(exchange=exchange, cache=cache, asked=asked, unit_F=unit_F)


@final
class Memory:
    """Reads along what is sent, and keeps it once it has ended well.

    Parameters
    ----------
    exchange:
        Whose answer it is; what it sends goes through here from now on.
    cache:
        Where it is kept.
    asked, unit_F:
        By what it is found.
    """

    def __init__(
        self, *, exchange: Exchange, cache: AnswerCache, asked: Asked, unit_F: Vector | None
    ) -> None:
        self._exchange = exchange
        self._cache = cache
        self._asked = asked
        self._unit_F = unit_F
        self._send: Send = exchange.send
        self._limit = int(cache.settings.max_mb * 1e6)
        self._content_type = b""
        self._parts: list[bytes] = []
        self._num_bytes = 0
        exchange.send = self._read

    async def _read(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._content_type = dict(message["headers"]).get(b"content-type", b"")
        elif message.get("body", b"") != self._exchange.protocol.ping and self._num_bytes <= self._limit:
            self._parts.append(message.get("body", b""))
            self._num_bytes += len(self._parts[-1])
        await self._send(message)

    def keep(self) -> None:
        """Keep the answer where it came whole."""
        account, cache = self._exchange.account, self._cache
        is_whole = account.status == 200 and account.error is None
        if not is_whole or account.served_name is None or account.is_replay:
            return
        if account.selection is not None and account.selection.reason == EXPLORED:
            return  # one draw is not to answer for many that the dial would have served otherwise
        body = b"".join(self._parts)
        if _WITHHELD.search(body) is not None or not account.counted_tokens[1]:
            return  # a filter's word, or none at all, is no answer for others
        kept = Kept(
            content_type=self._content_type,
            body=body,
            is_stream=self._exchange.request.is_stream,
            served=account.served_name,
            born_s=cache.clock.now_s(),
        )
        cache.keep(self._asked, self._unit_F, kept)


async def _give(exchange: Exchange, hit: Hit) -> None:
    """Send an answer again; its row says that it cost nothing and was asked of nobody."""
    account, kept = exchange.account, hit.kept
    account.provider = CACHE
    account.spent = Spent(name=kept.served, input_tokens=0, output_tokens=0, usd=0.0, is_estimated=False)
    account.decide(None, chosen=kept.served, reason=CACHE)
    account.end(200)
    account.is_sending = True
    headers = [
        *reply_headers(account),
        (b"x-turnout-model", header_text(kept.served)),
        (b"x-turnout-reason", CACHE.encode()),
        (_HEADER, f"hit; similarity={hit.similarity:.4f}".encode()),
        (b"age", b"%d" % hit.age_s),
    ]
    reply = Reply(status=200, headers=[(b"content-type", kept.content_type)], body=kept.body)
    if not kept.is_stream:
        await send_body(exchange.send, reply, headers, is_estimated=False)
        return
    await start_events(exchange.send, reply, headers, is_estimated=False)
    await exchange.send({"type": "http.response.body", "body": kept.body, "more_body": False})
