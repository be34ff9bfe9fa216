"""This module says by what a request is known in a cache: what may change the answer, and the last message.

Whose request it is, at which dial, under which rules, of which API and deployment, with which members of the
body: all of it must be the same. What only names a request, such as its metadata, does not count.
"""

from __future__ import annotations

import hashlib

import msgspec

from turnout.gateway.cache import Asked
from turnout.gateway.conversation import split_last_text
from turnout.gateway.dial import goal_of
from turnout.gateway.exchange import Exchange
from turnout.gateway.protocols.compact import CompactProtocol
from turnout.gateway.protocols.messages import MessagesProtocol
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.providers.anthropic import CLIENT_HEADERS
from turnout.gateway.rules import Ruling

_UNSEEN = frozenset({"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
"""Members that do not change what is answered."""

_CONTROL = b"cache-control"


def asked_of(exchange: Exchange, ruling: Ruling, *, across_tenants: bool) -> Asked | None:
    """Return by what a request is known; None for one whose answer is kept upstream, or made later.

    Raises `ApiError` for a dial that is wrong.
    """
    request, key = exchange.request, exchange.account.key
    is_sealed = exchange.protocol.name == CompactProtocol.name
    if request.follows or "background" in request.members or is_sealed or _is_kept_upstream(exchange):
        return None
    goal, _ = goal_of(exchange.headers, key, request.dial)
    members, text = split_last_text(request.members)
    digest = hashlib.blake2b(digest_size=16)
    for part in (
        b"" if key is None or across_tenants else key.tenant.encode(),
        exchange.protocol.name.encode(),
        ruling.name.encode(),
        (ruling.selector.fingerprint or "").encode(),
        repr(goal).encode(),
        msgspec.json.encode(request.told, order="sorted"),
        *_headers(exchange),
        *(name.encode() + b"=" + bytes(members[name]) for name in sorted(members.keys() - _UNSEEN)),
    ):
        # With its length, so that no two lists of parts run together into the same bytes.
        digest.update(b"%d:" % len(part) + part)
    return Asked(
        bucket=digest.digest(),
        text=text or "",
        is_comparable=text is not None and exchange.protocol.is_routed,
    )


def _headers(exchange: Exchange) -> list[bytes]:
    """Return the headers that reach an upstream and change its answer."""
    if exchange.protocol.name != MessagesProtocol.name:
        return []
    return [name + b":" + value for name, value in exchange.headers if name in CLIENT_HEADERS]


def _is_kept_upstream(exchange: Exchange) -> bool:
    """Whether the answer gets a name that later requests go on from: the Responses API's default."""
    store = bytes(exchange.request.members.get("store", b""))
    return exchange.protocol.name == ResponsesProtocol.name and store != b"false"


def may_read(exchange: Exchange) -> bool:
    """Whether the client takes an answer that was kept (`cache-control: no-cache` asks for a new one)."""
    return not _controls(exchange) & {"no-cache", "no-store"}


def may_keep(exchange: Exchange) -> bool:
    """Whether the client lets its answer be kept (`cache-control: no-store` does not)."""
    return "no-store" not in _controls(exchange)


def _controls(exchange: Exchange) -> set[str]:
    given = [value for name, value in exchange.headers if name == _CONTROL]
    return {word.strip().lower() for value in given for word in value.decode("latin-1").split(",")}
