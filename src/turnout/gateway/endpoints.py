"""This module answers the paths that change nothing: which models there are, and whether all is well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import final

from turnout.gateway.count import CountTokens
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import unknown_model
from turnout.gateway.key import Key
from turnout.gateway.metrics_text import CONTENT_TYPE, page
from turnout.gateway.openapi import OpenApi
from turnout.gateway.parts import Parts
from turnout.gateway.providers.base import Reply
from turnout.gateway.refused import no_deployment
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import REST, Routes
from turnout.gateway.wire import MODELS

HEALTH = "/healthz"
READY = "/readyz"
METRICS = "/metrics"
BREAKERS = "/admin/breakers"


@final
class ReadOnly:
    """The endpoints that read the parts and nothing else.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", MODELS, self.models)
        routes.add("GET", MODELS + "/{id}", self.model)
        routes.add("GET", HEALTH, self.health)
        routes.add("GET", READY, self.ready)
        routes.add("GET", METRICS, self.metrics)
        routes.add("GET", BREAKERS, self.breakers)
        CountTokens(parts=self._parts).add_to(routes)
        OpenApi(routes=routes).add_to(routes)

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List every name that a client may ask for."""
        parts = self._parts()
        names = [name for name in parts.names if _may_ask(scope, name)]
        if _is_anthropic(scope):
            ends = (
                {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
            )
            data = [_anthropic_model(name, parts) for name in names]
            await _send(send, json_reply({"data": data, "has_more": False, **ends}))
            return
        await _send(send, json_reply({"object": "list", "data": [_model(name, parts) for name in names]}))

    async def model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe one name; raises `ApiError` (404)."""
        parts, name = self._parts(), scope[REST]
        if name == parts.config.routing.alias and name not in parts.names:
            raise no_deployment(name, parts.names)
        if name not in parts.names or not _may_ask(scope, name):
            raise unknown_model(name, parts.names)
        told = _anthropic_model(name, parts) if _is_anthropic(scope) else _model(name, parts)
        await _send(send, json_reply(told))

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say whether requests are served and accounted."""
        parts = self._parts()
        is_well = parts.ledger.failure is None
        body = {
            "status": "ok" if is_well else "ledger cannot be written",
            "deployment": parts.selector.fingerprint,
            "candidates": len(parts.selector.by_name),
            "models": len(parts.selector.unrouted),
        }
        await _send(send, json_reply(body, status=200 if is_well else 503))

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say whether further requests should be sent here; an end, a full house and a full ledger say no."""
        parts = self._parts()
        gate = parts.gate
        reason = None
        if gate.is_leaving:
            reason = "the gateway is about to end"
        elif parts.ledger.is_full:
            reason = "the ledger holds as many rows as it may"
        elif gate.num_running >= gate.settings.max_running:
            reason = "as many requests run as may"
        body = {"ready": reason is None, "reason": reason, "running": gate.num_running}
        await _send(send, json_reply(body, status=200 if reason is None else 503))

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the metrics for Prometheus."""
        parts = self._parts()
        body = page(parts)
        await _send(send, Reply(status=200, headers=[(b"content-type", CONTENT_TYPE)], body=body))

    async def breakers(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say for every upstream place whether it is called, rests, or is probed."""
        await _send(send, json_reply({"breakers": self._parts().breakers.listed()}))


def _may_ask(scope: Scope, name: str) -> bool:
    """Whether the client's key, if it needs one, lets it ask for a model."""
    key: Key | None = scope.get(KEY)
    return key is None or key.models is None or name in key.models


def _model(name: str, parts: Parts) -> dict[str, object]:
    owner = parts.config.provider_of(name) if name in parts.places else "turnout"
    return {"id": name, "object": "model", "created": parts.created_s, "owned_by": owner}


def _is_anthropic(scope: Scope) -> bool:
    """Whether the client speaks Anthropic's API, where models look otherwise."""
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def _anthropic_model(name: str, parts: Parts) -> dict[str, object]:
    created = datetime.fromtimestamp(parts.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "lifecycle": "active",
    }


async def _send(send: Send, reply: Reply) -> None:
    await send_body(send, reply, [], is_estimated=False)
