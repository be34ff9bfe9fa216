"""This module serves OpenAI's Conversations: an upstream keeps them, and responses go on from them there.

What is written into one goes through the rules first, as a request does that a model answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final
from urllib.parse import quote

import msgspec

from turnout.gateway.body import read_body
from turnout.gateway.conversation_makers import KIND, Maker, makers, no_keeper
from turnout.gateway.disconnect import Attended, Receive, Scope, Send
from turnout.gateway.errors import ApiError, unknown_path
from turnout.gateway.kept import ask, find_keeper, pass_on, tenant_of
from turnout.gateway.kept_rules import headers_upstream, ruled, told
from turnout.gateway.parts import Parts
from turnout.gateway.pins import unknown_conversation
from turnout.gateway.pins_store import Pin, conversation_name
from turnout.gateway.providers.base import KeptCall, Reply
from turnout.gateway.reply import header_text, send_body
from turnout.gateway.routes import REST, Routes
from turnout.gateway.rules import Ruling
from turnout.gateway.wire import Members, parse_members, render

PATH = "/v1/conversations"
ONE = PATH + "/{id}"
ITEMS = ONE + "/items"
ITEM = ITEMS + "/{item_id}"

_NO_SUCH_PATH = (404, 405, 501)
"""What a server answers that speaks OpenAI's API and has no conversations."""


class _Made(msgspec.Struct):
    id: str


_made_decoder = msgspec.json.Decoder(_Made)


@final
class Conversations:
    """The endpoints of conversations.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("POST", PATH, self.create)
        routes.add("GET", ONE, self.get)
        routes.add("POST", ONE, self.update)
        routes.add("DELETE", ONE, self.delete)
        routes.add("GET", ITEMS, self.list_items)
        routes.add("POST", ITEMS, self.add_items)
        routes.add("GET", ITEM, self.get_item)
        routes.add("DELETE", ITEM, self.delete_item)

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make a conversation at a provider that keeps it; raises `ApiError`."""
        parts = self._parts()
        members, ruling = await _read(parts, scope, receive)
        ranked = makers(parts, scope, parts.selector if ruling is None else ruling.selector)
        with Attended(receive, scope):
            maker, reply = await _made_by(ranked, _call(scope, "", members, ruling))
        if reply.status == 200:
            await _remember(parts, scope, maker, reply)
        headers = [*told(ruling), (b"x-turnout-provider", header_text(maker.provider.name))]
        await send_body(send, reply, headers, is_estimated=False)

    async def get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return a conversation from the upstream that keeps it."""
        await self._pass_on(scope, receive, send)

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the metadata of a conversation."""
        await self._pass_on(scope, receive, send)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the upstream that keeps a conversation delete it; its items stay there, as OpenAI says."""
        await self._pass_on(scope, receive, send)

    async def list_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List the items of a conversation."""
        await self._pass_on(scope, receive, send)

    async def add_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write items into a conversation."""
        await self._pass_on(scope, receive, send)

    async def get_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return one item of a conversation."""
        await self._pass_on(scope, receive, send)

    async def delete_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the upstream delete one item of a conversation."""
        await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the upstream that keeps it; raises `ApiError` (404, and what becomes of one that fails)."""
        parts = self._parts()
        made_id, *rest = str(scope[REST]).split("/")
        # The id takes in what no other path does; nothing may climb out of a conversation by its item.
        if len(rest) > 2 or (rest and rest[0] != "items") or {"", ".", ".."} & {made_id, *rest}:
            raise unknown_path(scope["path"], [ONE, ITEMS, ITEM])
        keeper = await find_keeper(parts, scope, kind=KIND, name=conversation_name(made_id))
        if keeper is None:
            raise unknown_conversation(made_id)
        members, ruling = await _read(parts, scope, receive)
        path = "/" + "/".join(quote(part, safe="") for part in (made_id, *rest))
        call = _call(scope, path, members, ruling)
        await pass_on(parts, keeper, call, (scope, receive, send), told(ruling))


async def _read(parts: Parts, scope: Scope, receive: Receive) -> tuple[Members, Ruling | None]:
    """Return the body's members as rules leave them, and what is in force; a call without a body has none."""
    body = await read_body(scope, receive, parts.config.server) if _has_body(scope) else b""
    return await ruled(parts, scope, parse_members(body) if body.strip() else {})


def _has_body(scope: Scope) -> bool:
    return bool(scope["method"] == "POST")


def _call(scope: Scope, path: str, members: Members, ruling: Ruling | None) -> KeptCall:
    return KeptCall(
        # HEAD is answered as GET is.
        method="GET" if scope["method"] == "HEAD" else scope["method"],
        kind=KIND,
        path=path,
        query=scope["query_string"].decode("latin-1"),
        body=render(members) if _has_body(scope) else b"",
        headers=headers_upstream(scope, ruling),
    )


async def _made_by(ranked: list[Maker], call: KeptCall) -> tuple[Maker, Reply]:
    """Ask one provider after the other until one has made it; the last failure is the answer, or is raised.

    Who says that it has no such path is passed over: a server may speak OpenAI's API without conversations.
    """
    failed: tuple[Maker, Reply] | ApiError | None = None
    without: list[str] = []
    for maker in ranked:
        try:
            reply = await ask(maker.provider, call)
        except ApiError as error:
            failed = error
            continue
        if reply.status in _NO_SUCH_PATH:
            without.append(f"{maker.provider.name}: {reply.status}")
            continue
        if reply.status < 500:
            return maker, reply
        failed = (maker, reply)
    if failed is None:
        raise no_keeper(", ".join(without))
    if isinstance(failed, ApiError):
        raise failed
    return failed


async def _remember(parts: Parts, scope: Scope, maker: Maker, reply: Reply) -> None:
    """Note who keeps it, before the client can ask about it; an answer without an id names nothing."""
    try:
        made = _made_decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    await parts.pins.remember(
        [conversation_name(made.id)], Pin(maker=maker.candidate, tenant=tenant_of(scope))
    )
