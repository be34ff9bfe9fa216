"""This module describes the gateway's paths as an OpenAPI document, for clients and testers that read one.

Paths and their sentences come from the table of paths itself. Bodies are described as far as the gateway
reads them: everything else is passed on, so every object may have further members.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, final

from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.protocols import PROTOCOLS
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import Handler, Routes

PATH = "/openapi.json"
_MEMBER = re.compile(r"\{(\w+)\}")
VERSION = "3.1.0"
"""Version of OpenAPI."""

Json = dict[str, Any]

_MODEL = {"type": "string", "minLength": 1, "examples": ["turnout/auto"]}
_TURN = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": ["user", "assistant"]},
        "content": {"type": "string"},
    },
}
_TURNS = {"type": "array", "minItems": 1, "items": _TURN}
_STREAM = {"type": "boolean"}
_TEXTS = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_ITEM = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "type": {"type": "string", "enum": ["message"]},
        "role": {"type": "string", "enum": ["user", "assistant"]},
        "content": {"type": "string"},
    },
}
_ITEMS = {"type": "array", "maxItems": 20, "items": _ITEM}
_METADATA = {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string"}}
_BODIES: dict[str, tuple[list[str], Json]] = {
    "/v1/chat/completions": (["model", "messages"], {"model": _MODEL, "messages": _TURNS, "stream": _STREAM}),
    "/v1/messages": (
        ["model", "messages", "max_tokens"],
        {
            "model": _MODEL,
            "messages": _TURNS,
            "max_tokens": {"type": "integer", "minimum": 1},
            "stream": _STREAM,
        },
    ),
    "/v1/messages/count_tokens": (["model", "messages"], {"model": _MODEL, "messages": _TURNS}),
    "/v1/responses": (["input"], {"model": _MODEL, "input": {"type": "string"}, "stream": _STREAM}),
    "/v1/responses/compact": (["model"], {"model": _MODEL, "input": {"type": "string"}}),
    "/v1/responses/input_tokens": ([], {"model": _MODEL, "input": {"type": "string"}}),
    "/v1/conversations": ([], {"items": _ITEMS, "metadata": _METADATA}),
    "/v1/conversations/{id}": (["metadata"], {"metadata": _METADATA}),
    "/v1/conversations/{id}/items": (["items"], {"items": _ITEMS}),
    "/v1/embeddings": (["model", "input"], {"model": _MODEL, "input": _TEXTS}),
    "/v1/route": (["model"], {"model": _MODEL, "messages": _TURNS, "input": {"type": ["string", "array"]}}),
    "/v1/feedback": (
        ["decision_id", "score"],
        {"decision_id": {"type": "string"}, "score": {"type": "number", "minimum": 0, "maximum": 1}},
    ),
}
_EITHER = {"/v1/route": ("messages", "input")}
"""Path -> members of which a body has at least one: it may be of any API."""
_ERROR = {"description": "an error that says what is wrong, what is allowed, and what to do"}


@final
class OpenApi:
    """The endpoint that describes the others.

    Parameters
    ----------
    routes:
        The table of paths.
    """

    def __init__(self, *, routes: Routes) -> None:
        self._routes = routes

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("GET", PATH, self.describe)

    async def describe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe every path of this gateway."""
        await send_body(send, json_reply(document(self._routes)), [], is_estimated=False)


def document(routes: Routes) -> Json:
    """Return the whole document."""
    paths: dict[str, Json] = {}
    for method, path, handler in routes.operations():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, handler)
    info = {"title": "turnout", "version": "1", "summary": "Asks the model that is worth it."}
    return {"openapi": VERSION, "info": info, "paths": paths}


def _operation(method: str, path: str, handler: Handler) -> Json:
    told: Json = {
        "summary": _sentence(path, handler),
        "responses": {"200": {"description": "the answer"}, "default": _ERROR},
    }
    names = _MEMBER.findall(path)
    if names:
        kind = {"in": "path", "required": True, "schema": {"type": "string"}}
        told["parameters"] = [{"name": name, **kind} for name in names]
    if method == "POST" and path in _BODIES:
        required, properties = _BODIES[path]
        schema: Json = {"type": "object", "required": required, "properties": properties}
        if path in _EITHER:
            schema["anyOf"] = [{"required": [name]} for name in _EITHER[path]]
        told["requestBody"] = {
            "required": bool(required),
            "content": {"application/json": {"schema": schema}},
        }
    return told


def _sentence(path: str, handler: Callable[..., Any]) -> str:
    """Return what a path does: the first line of whoever serves it."""
    protocol = next((one for one in PROTOCOLS if one.path == path), None)
    text = (handler if protocol is None else type(protocol)).__doc__ or path
    return text.strip().splitlines()[0]
