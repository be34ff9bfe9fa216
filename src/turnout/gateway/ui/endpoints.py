"""This module serves the page: its files as they lie in the package, its data as JSON."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, final
from urllib.parse import parse_qsl

from turnout.core.errors import did_you_mean, sentence
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.look import Look, look_at, url_of
from turnout.gateway.number import number_of
from turnout.gateway.parts import Parts
from turnout.gateway.providers.base import Reply
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.routes import REST, Routes
from turnout.gateway.ui.decisions import FILTERS, latest, opened
from turnout.gateway.ui.overview import SPANS_S, overview

PAGE = "/ui"

_FRESH_S = 1.0
"""Seconds for which a look at the ledger serves everybody who asks, at least."""

_REST = 5.0
"""A look that took long stays fresh for so many times as long: looking must not take the gateway's time."""

_KINDS = {".html": b"text/html", ".css": b"text/css", ".js": b"text/javascript", ".svg": b"image/svg+xml"}
_SAFE: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


@final
class Ui:
    """The page and its data; nothing here changes anything.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._looks: dict[str, asyncio.Task[Reply]] = {}
        self._until_s: dict[str, float] = {}

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", PAGE, self.page)
        routes.add("GET", f"{PAGE}/data", self.data)
        routes.add("GET", f"{PAGE}/decisions", self.decisions)
        routes.add("GET", f"{PAGE}/decisions/{{id}}", self.decision)
        routes.add("GET", f"{PAGE}/{{id}}", self.file)

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page."""
        await send_body(send, _file("index.html"), _SAFE, is_estimated=False)

    async def file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send one of the page's files; raises `ApiError` (404)."""
        await send_body(send, _file(scope[REST]), _SAFE, is_estimated=False)

    async def data(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the numbers of a span; whoever asks soon after is sent the same ones."""
        name = _asked(scope).get("span", "1h")
        if name not in SPANS_S:
            raise _unknown("span", name, list(SPANS_S))
        look = self._looks.get(name)
        if look is None or (look.done() and time.monotonic() >= self._until_s[name]):
            look = self._looks[name] = asyncio.create_task(self._look(name))
        await send_body(send, await asyncio.shield(look), _SAFE, is_estimated=False)

    async def _look(self, name: str) -> Reply:
        started_s = time.monotonic()
        try:
            found: Reply = await _read(lambda: json_reply(overview(self._parts(), name)))
            return found
        finally:
            now_s = time.monotonic()
            self._until_s[name] = now_s + max(_FRESH_S, _REST * (now_s - started_s))

    async def decisions(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a page of decisions, the latest first."""
        asked = _asked(scope)
        kind = asked.get("kind", "all")
        if kind not in FILTERS:
            raise _unknown("kind", kind, list(FILTERS))
        before_s = _number(asked, "before")

        def ask(look: Look) -> Reply:
            return json_reply(latest(look, kind=kind, before_s=before_s, before_id=asked.get("id", "")))

        await send_body(send, await self._asked_of(ask), _SAFE, is_estimated=False)

    async def decision(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a decision with its reasons; raises `ApiError` (404)."""
        decision_id = scope[REST]
        found = await self._asked_of(lambda look: opened(look, decision_id))
        if found is None:
            message = sentence(
                "there is no such decision",
                allowed="an id of the list of decisions",
                got=decision_id,
                do="look for it in the list",
            )
            raise ApiError(404, message, code="decision_not_found")
        await send_body(send, json_reply(found), _SAFE, is_estimated=False)

    async def _asked_of(self, ask: Callable[[Look], Any]) -> Any:
        ledger = self._parts().ledger
        return await _read(lambda: look_at(ledger.path, url_of(ledger.sender), ask))


async def _read(look: Callable[[], Any]) -> Any:
    """Read the ledger beside the event loop; raises `ApiError` (503) where it cannot be read."""
    try:
        return await asyncio.to_thread(look)
    except sqlite3.Error as error:
        message = sentence(
            "the ledger cannot be read",
            allowed="the file that the setting ledger.path names",
            got=str(error),
            do="look at GET /healthz and the gateway's log",
        )
        raise ApiError(503, message, code="ledger_unavailable", kind="server_error") from error


def _file(name: str) -> Reply:
    kind = _KINDS.get(Path(name).suffix)
    file = resources.files(__package__).joinpath("static", name)
    if kind is None or "/" in name or not file.is_file():
        message = sentence("the page has no such file", allowed="its own", got=name, do=f"open {PAGE}")
        raise ApiError(404, message, code="unknown_url")
    return Reply(status=200, headers=[(b"content-type", kind + b"; charset=utf-8")], body=file.read_bytes())


def _asked(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


def _number(asked: dict[str, str], name: str) -> float | None:
    try:
        return number_of(asked[name]) if name in asked else None
    except ValueError as error:
        message = sentence(
            f"the query {name!r} is wrong", allowed="a number", got=asked[name], do="leave it out"
        )
        raise ApiError(400, message, code="invalid_query", param=name) from error


def _unknown(name: str, got: str, known: list[str]) -> ApiError:
    message = sentence(
        f"the query {name!r} is wrong", allowed=", ".join(known), got=got, do=did_you_mean(got, known)
    )
    return ApiError(400, message, code="invalid_query", param=name)
