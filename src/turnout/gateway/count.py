"""This module says how long a request of Messages is, by the estimate that routing uses; it asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from turnout.gateway.body import read_body
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError
from turnout.gateway.parts import Parts
from turnout.gateway.protocols.messages import MessagesProtocol
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import Routes

PATH = "/v1/messages/count_tokens"

_ESTIMATED = (b"x-turnout-usage-estimated", b"true")


@final
class CountTokens:
    """The endpoint that estimates.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._protocol = MessagesProtocol()

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("POST", PATH, self.count)

    async def count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Estimate the length of a request of Messages in tokens."""
        try:
            body = await read_body(scope, receive, self._parts().config.server)
            tokens = self._protocol.parse(body).input_tokens
        except ApiError as error:
            await send_body(send, self._protocol.error_reply(error), [], is_estimated=False)
            return
        await send_body(send, json_reply({"input_tokens": tokens}), [_ESTIMATED], is_estimated=False)
