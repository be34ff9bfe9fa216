"""This module answers the paths below /admin that change something."""

from __future__ import annotations

from typing import final

from turnout.core.errors import TurnoutError
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError
from turnout.gateway.reload import Reloader
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import Routes

RELOAD = "/admin/reload"


@final
class Admin:
    """The endpoints for whoever runs the gateway.

    Parameters
    ----------
    reloader:
        Replaces the configuration.
    """

    def __init__(self, *, reloader: Reloader) -> None:
        self.reloader = reloader

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("POST", RELOAD, self.reload)

    async def reload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reload the configuration, or with `?check` say what would change; 409 for one that is wrong."""
        only_check = scope["query_string"].startswith(b"check")
        try:
            changes = await self.reloader.reload(only_check=only_check)
        except TurnoutError as error:
            what = f"the configuration was not reloaded, and the one before stays in force; {error}"
            raise ApiError(409, what, code="bad_configuration") from error
        if not only_check and self.reloader.on_reload is not None:
            self.reloader.on_reload()
        body = {
            "applied": not only_check,
            "changes": [{"key": one.key, "before": one.before, "after": one.after} for one in changes],
        }
        await send_body(send, json_reply(body), [], is_estimated=False)
