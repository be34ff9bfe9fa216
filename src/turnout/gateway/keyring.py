"""This module recognises clients: a secret in a header becomes a key, or the request is refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import final

from turnout.core.clock import Clock
from turnout.core.errors import ConfigError, sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key, digest_of
from turnout.gateway.keystore import Remembered
from turnout.gateway.secret import read_secret
from turnout.gateway.settings_keys import KeySettings

_NAMES = (b"x-api-key", b"api-key", b"x-goog-api-key")
_WHERE = "a key as 'authorization: Bearer KEY' or 'x-api-key: KEY'"


MIN_SECRET = 8
"""Characters that a client's secret has at least."""


@final
class Keyring:
    """Every key that opens the gateway.

    Parameters
    ----------
    keys:
        Those of the settings.
    store:
        Those of the store, where there is one.
    clock:
        What time it is.
    """

    def __init__(self, *, keys: Sequence[Key], store: Remembered | None, clock: Clock) -> None:
        self._by_digest = {key.digest: key for key in keys}
        self.store = store
        self.clock = clock

    async def recognise(self, headers: Sequence[tuple[bytes, bytes]]) -> Key:
        """Return the key of a request; raises `ApiError` (401).

        Keys are found by their hash: how far a wrong secret agrees with a right one cannot be told from
        the time of the answer, because it has another hash altogether.
        """
        secret = secret_of(headers)
        if secret is None:
            raise _unknown("the request has no key", "missing_api_key")
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None and self.store is not None:
            key = await self.store.find(digest)
        if key is None or not key.fits(digest):
            raise _unknown("the request's key is not known, or was revoked", "invalid_api_key")
        if key.expires_s is not None and self.clock.now_s() >= key.expires_s:
            raise _unknown("the request's key has expired", "expired_api_key")
        return key


def secret_of(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the secret that a request carries: a bearer token, a key header, or a browser's password."""
    found: dict[bytes, str] = {name: value.decode("utf-8", "surrogateescape") for name, value in headers}
    kind, _, rest = found.get(b"authorization", "").strip().partition(" ")
    if kind.lower() == "bearer" and rest.strip():
        return rest.strip()
    for name in _NAMES:
        if secret := found.get(name, "").strip():
            return secret
    return _password(rest.strip()) if kind.lower() == "basic" else None


def _password(encoded: str) -> str | None:
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[2] or None


def config_keys(sections: Mapping[str, KeySettings]) -> list[Key]:
    """Return the keys of the settings; reads their secrets. Raises `ConfigError`."""
    keys: dict[bytes, Key] = {}
    for name, settings in sections.items():
        if settings.secret is None:
            digest = bytes.fromhex(settings.sha256 or "")
        else:
            digest = digest_of(_checked(read_secret(settings.secret, f"keys.{name}.secret"), name))
        if digest in keys:
            raise ConfigError(
                sentence(
                    f"the keys {keys[digest].name!r} and {name!r} have the same secret",
                    allowed="a secret for each key",
                    do="give one of them another",
                )
            )
        keys[digest] = Key.made(name, digest, settings)
    return list(keys.values())


def _checked(secret: str, name: str) -> str:
    """Return a secret that nobody finds by trying all; raises `ConfigError`, which does not show it."""
    if len(secret) < MIN_SECRET:
        raise ConfigError(
            sentence(
                f"the secret of 'keys.{name}.secret' is short enough to be guessed",
                allowed=f"at least {MIN_SECRET} characters",
                got=len(secret),
                do="take a random one, as `turnout keys create` makes",
            )
        )
    return secret


def _unknown(what: str, code: str) -> ApiError:
    # Nothing of the secret is shown: half of it may be right, and answers end up in logs.
    message = sentence(what, allowed=_WHERE, do="send one that `turnout keys` made or the settings name")
    # One challenge a line: browsers read no further than the first of a line, and ask for no password then.
    headers = [(b"www-authenticate", b'%s realm="turnout"' % kind) for kind in (b"Basic", b"Bearer")]
    return ApiError(401, message, code=code, headers=headers)
