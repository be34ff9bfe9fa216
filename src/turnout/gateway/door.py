"""This module guards the paths that serve no model: what is open, what needs a key, what an admin's."""

from __future__ import annotations

from turnout.core.clock import Clock
from turnout.core.errors import sentence
from turnout.gateway.admission import Admission
from turnout.gateway.books import open_books
from turnout.gateway.config import Config, ServerSettings
from turnout.gateway.disconnect import Scope
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key
from turnout.gateway.keyring import Keyring
from turnout.gateway.keystore import Remembered
from turnout.gateway.pages import check_page, check_site

KEY = "turnout.key"
"""Where a handler finds the client's key in its scope, if keys are asked for."""

OPEN = frozenset({"/healthz", "/readyz"})
"""Paths for load balancers, which have no key."""

ADMIN = ("/admin/", "/metrics", "/ui")
"""How paths begin that need a key with `is_admin`, where keys are asked for."""


async def open_admission(config: Config, keys: list[Key], clock: Clock) -> Admission | None:
    """Open what keys need, or return None where nobody needs one; raises `ConfigError`."""
    if not config.asks_for_keys:
        return None
    books = await open_books(config, clock)
    remembered = Remembered(store=books.keys, clock=clock, refresh_s=config.auth.refresh_s)
    return Admission(
        keyring=Keyring(keys=keys, store=remembered, clock=clock),
        books=books,
        settings=config.auth,
        clock=clock,
    )


async def guard(scope: Scope, admission: Admission | None, server: ServerSettings) -> None:
    """Let a request pass to a path that serves no model; raises `ApiError` (401, 403)."""
    path: str = scope["path"]
    if path in OPEN:
        return
    if admission is None:
        check_page(scope, server)
        return
    is_admin = path.startswith(ADMIN)
    if is_admin and scope["method"] not in ("GET", "HEAD"):
        check_site(scope)
    key = await admission.recognise(scope["headers"])
    if is_admin and not key.is_admin:
        raise _no_admin(key, path)
    scope[KEY] = key


def _no_admin(key: Key, path: str) -> ApiError:
    message = sentence(
        f"the key {key.name!r} may not use this path",
        allowed="a key with 'is_admin'",
        got=path,
        do="send such a key",
    )
    return ApiError(403, message, code="admin_only")
