"""This module says of stored chat completions (`store: true`) that they are not served here.

A request with `store` is passed on, and the upstream keeps the completion under the gateway's own account,
beside those of every other tenant. That account knows no tenants, so its paths are not opened.
"""

from __future__ import annotations

from typing import Never, final

from turnout.core.errors import sentence
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError
from turnout.gateway.routes import Routes

PATH = "/v1/chat/completions/{id}"


@final
class StoredChat:
    """The paths of OpenAI's stored chat completions."""

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", PATH, self.get)
        routes.add("POST", PATH, self.update)
        routes.add("DELETE", PATH, self.delete)

    async def get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to return a stored chat completion, or its messages."""
        _refuse()

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to set the metadata of a stored chat completion."""
        _refuse()

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to delete a stored chat completion."""
        _refuse()


def _refuse() -> Never:
    message = sentence(
        "stored chat completions are not served by this gateway",
        allowed="POST /v1/chat/completions, and what is kept by GET /v1/responses/{id}",
        do="keep the answer yourself, ask the provider with a key of its own, or use Responses",
    )
    raise ApiError(404, message, code="completions_not_kept")
