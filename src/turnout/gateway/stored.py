"""This module asks an upstream for what it keeps of OpenAI's Responses: the gateway itself keeps no answer.

A response is asked for where it was made, by the memory of `pins`, and for the tenant it was made for. For
everybody else, and where nobody here made it, it is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final
from urllib.parse import quote

from turnout.core.errors import sentence
from turnout.gateway.disconnect import Attended, ClientGoneError, Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError, unknown_path
from turnout.gateway.key import Key
from turnout.gateway.parts import Parts
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.providers.base import Chunks, Fault, Provider, Reply
from turnout.gateway.reply import send_body, start_events
from turnout.gateway.routes import REST, Routes

PATH = "/v1/responses/{id}"

_ASKS = {"GET": (None, "input_items"), "DELETE": (None,), "POST": ("cancel",)}
"""What may follow the id of a response."""
_PROTOCOL = ResponsesProtocol()


@final
class StoredResponses:
    """The endpoints of responses that an upstream keeps.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", PATH, self.get)
        routes.add("DELETE", PATH, self.delete)
        routes.add("POST", PATH, self.cancel)

    async def get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return a response from the upstream that keeps it, or its `/input_items`."""
        await self._pass_on(scope, receive, send)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the upstream that keeps a response delete it."""
        await self._pass_on(scope, receive, send)

    async def cancel(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cancel a response that runs in the background, by `/cancel`."""
        await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the upstream; raises `ApiError` (404, and what becomes of an upstream that fails)."""
        # HEAD is answered as GET is.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        made_id, _, what = str(scope[REST]).partition("/")
        if (what or None) not in _ASKS[method] or not made_id:
            allowed = ["GET", "DELETE", "GET /input_items", "POST /cancel"]
            raise unknown_path(scope["path"], allowed)
        provider = await self._keeper(made_id, scope.get(KEY))
        path = quote(made_id, safe="") + (f"/{what}" if what else "")
        query = scope["query_string"].decode("latin-1")
        try:
            with Attended(receive, scope):
                reply = await provider.ask_kept(method, path, query)
                if reply.chunks is not None:
                    await _forward(send, reply, reply.chunks)
        except Fault as fault:
            if fault.reply is None:
                raise fault.error from fault
            reply = fault.reply
        except ClientGoneError:
            return
        if reply.chunks is None:
            await send_body(send, reply, [], is_estimated=False)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keeper(self, made_id: str, key: Key | None) -> Provider:
        parts = self._parts()
        pin = await parts.pins.find((made_id,))
        if pin is None or pin.tenant != ("" if key is None else key.tenant):
            raise _not_there(made_id)
        place = parts.places.get(pin.maker)
        if place is None or not place[0].keeps:
            raise _not_there(made_id)
        return place[0]


async def _forward(send: Send, reply: Reply, chunks: Chunks) -> None:
    """Pass a stream on; one that is cut ends in an error event."""
    try:
        await start_events(send, reply, [], is_estimated=False)
        while block := await chunks.read():
            await send({"type": "http.response.body", "body": block, "more_body": True})
    except Fault as fault:
        event = _PROTOCOL.error_event(fault.error.message, code=fault.error.code)
        await send({"type": "http.response.body", "body": event, "more_body": True})
    finally:
        chunks.close()


def _not_there(made_id: str) -> ApiError:
    message = sentence(
        f"Response with id {made_id[:80]!r} not found",
        allowed="a response that an upstream keeps, made through this gateway for the same tenant",
        do="keep the answer yourself; one that was translated from another API is kept nowhere",
    )
    return ApiError(404, message, code="response_not_found", param="response_id")
