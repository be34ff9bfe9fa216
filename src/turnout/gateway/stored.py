"""This module serves what an upstream keeps of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import final
from urllib.parse import quote

from turnout.core.errors import sentence
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError, unknown_path
from turnout.gateway.kept import find_keeper, pass_on
from turnout.gateway.kept_rules import headers_upstream, ruled, told
from turnout.gateway.parts import Parts
from turnout.gateway.providers.base import KeptCall
from turnout.gateway.routes import REST, Routes

PATH = "/v1/responses/{id}"
KIND = "responses"

_ASKS = {"GET": (None, "input_items"), "DELETE": (None,), "POST": ("cancel",)}
"""What may follow the id of a response."""


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
        parts = self._parts()
        keeper = await find_keeper(parts, scope, kind=KIND, name=made_id)
        if keeper is None:
            raise _not_there(made_id)
        path = "/" + quote(made_id, safe="") + (f"/{what}" if what else "")
        _, ruling = await ruled(parts, scope, {})
        call = KeptCall(
            method=method,
            kind=KIND,
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers=headers_upstream(scope, ruling),
        )
        await pass_on(parts, keeper, call, (scope, receive, send), told(ruling))


def _not_there(made_id: str) -> ApiError:
    message = sentence(
        f"Response with id {made_id[:80]!r} not found",
        allowed="a response that an upstream keeps, made through this gateway for the same tenant",
        do="keep the answer yourself; one that was translated from another API is kept nowhere",
    )
    return ApiError(404, message, code="response_not_found", param="response_id")
