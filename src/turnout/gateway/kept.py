"""This module asks an upstream about what it keeps, and passes its answer on; the gateway keeps nothing.

What is kept is asked for where it was made, by the memory of `pins`, and for the tenant it was made for. For
everybody else, and where nobody here made it, it is not there. Such requests ask no model and are in no
ledger.
"""

from __future__ import annotations

import msgspec

from turnout.gateway.disconnect import Attended, Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import Headers
from turnout.gateway.parts import Parts
from turnout.gateway.pins_store import Pin, item_name
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.providers.base import Chunks, Fault, KeptCall, Provider, Reply
from turnout.gateway.reply import send_body, start_events

_PROTOCOL = ResponsesProtocol()


class _Item(msgspec.Struct):
    id: str | None = None


class _Told(msgspec.Struct):
    id: str | None = None
    data: list[_Item] | None = None


_told_decoder = msgspec.json.Decoder(_Told)


def tenant_of(scope: Scope) -> str:
    """Return whose request it is; empty where nobody needs a key."""
    key = scope.get(KEY)
    return "" if key is None else key.tenant


class Keeper(msgspec.Struct, frozen=True):
    """Who keeps something, and who made it there."""

    provider: Provider
    pin: Pin


async def find_keeper(parts: Parts, scope: Scope, *, kind: str, name: str) -> Keeper | None:
    """Return who keeps what is known by `name`; None where it is not there for who asks."""
    pin = await parts.pins.find((name,))
    if pin is None or pin.tenant != tenant_of(scope):
        return None
    place = parts.places.get(pin.maker)
    return Keeper(place[0], pin) if place is not None and place[0].keeps(kind) else None


async def pass_on(
    parts: Parts, keeper: Keeper, call: KeptCall, connection: tuple[Scope, Receive, Send], headers: Headers
) -> None:
    """Ask, and send what comes with `headers` besides; items that are told can be referred to from then on.

    Raises `ApiError` where nothing did, and `ClientGoneError`.
    """
    scope, receive, send = connection
    with Attended(receive, scope):
        reply = await ask(keeper.provider, call)
        if reply.status == 200 and (names := _items_in(call, reply.body)):
            await parts.pins.remember(names, Pin(maker=keeper.pin.maker, tenant=keeper.pin.tenant))
        if reply.chunks is not None:
            await _forward(send, reply, reply.chunks, headers)
    if reply.chunks is None:
        await send_body(send, reply, headers, is_estimated=False)
    else:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(provider: Provider, call: KeptCall) -> Reply:
    """Return the upstream's reply, an error of its own too; raises `ApiError` where it gave none."""
    try:
        return await provider.ask_kept(call)
    except Fault as fault:
        raise fault.error from fault


def _items_in(call: KeptCall, body: bytes) -> list[str]:
    """Return the names of the items that an answer tells of, where it was asked about items."""
    if call.path.split("/")[2:3] not in (["items"], ["input_items"]) or call.method == "DELETE":
        return []
    try:
        told = _told_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [item_name(item.id) for item in (told, *(told.data or ())) if item.id]


async def _forward(send: Send, reply: Reply, chunks: Chunks, headers: Headers) -> None:
    """Pass a stream on; one that is cut ends in an error event."""
    try:
        await start_events(send, reply, headers, is_estimated=False)
        while block := await chunks.read():
            await send({"type": "http.response.body", "body": block, "more_body": True})
    except Fault as fault:
        event = _PROTOCOL.error_event(fault.error.message, code=fault.error.code)
        await send({"type": "http.response.body", "body": event, "more_body": True})
    finally:
        chunks.close()
