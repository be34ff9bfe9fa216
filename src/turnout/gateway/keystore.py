"""This module keeps the keys that `turnout keys` makes: their hashes, what they allow, and since when."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import msgspec

from turnout.core.clock import Clock
from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.key import PREFIX, Key, digest_of, new_secret
from turnout.gateway.settings_keys import KeySettings
from turnout.gateway.turns import Turns

_MAX_REMEMBERED = 10_000
HINT_CHARS = len(PREFIX) + 4
"""How much of a secret is kept to be shown."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRecord:
    """A key of the store, as people see it."""

    name: str
    hint: str
    """How its secret begins."""
    settings: KeySettings
    created_s: float
    expires_s: float | None
    revoked_s: float | None


class KeyStore(ABC):
    """Where keys are kept."""

    @abstractmethod
    async def create(self, name: str, settings: KeySettings, *, expires_s: float | None = None) -> str:
        """Keep a new key and return its secret, shown this once; raises `InputError` for a name in use."""

    @abstractmethod
    async def listed(self) -> list[KeyRecord]:
        """Return every key by name, revoked ones included."""

    @abstractmethod
    async def revoke(self, name: str) -> None:
        """End a key for good; raises `InputError` where there is none of this name that is in force."""

    @abstractmethod
    async def find(self, digest: bytes) -> Key | None:
        """Return the key of this hash, or None where there is none in force."""

    @abstractmethod
    async def close(self) -> None:
        """Close what the keys are kept in."""


@final
class SqliteKeyStore(KeyStore):
    """Keys in a SQLite file.

    Parameters
    ----------
    connection:
        An open file of keys (`open_keyfile`).
    clock:
        What time it is.
    """

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self.turns = Turns(connection)

    async def create(self, name: str, settings: KeySettings, *, expires_s: float | None = None) -> str:
        """Keep a new key and return its secret."""
        secret, kept = prepared(name, settings)
        row = (name, digest_of(secret), secret[:HINT_CHARS], kept, self.clock.now_s(), expires_s)
        try:
            await self._execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        except sqlite3.IntegrityError as error:
            raise name_in_use(name) from error
        return secret

    async def listed(self) -> list[KeyRecord]:
        """Return every key by name."""
        query = "SELECT name, hint, settings, created_s, expires_s, revoked_s FROM keys ORDER BY name"
        rows = await self.turns.do(lambda: self.connection.execute(query).fetchall())
        return [record_of(*row) for row in rows]

    async def revoke(self, name: str) -> None:
        """End a key for good."""
        query = "UPDATE keys SET revoked_s = ? WHERE name = ? AND revoked_s IS NULL"
        if (await self._execute(query, (self.clock.now_s(), name))).rowcount == 0:
            raise no_such_key(name, [one.name for one in await self.listed() if one.revoked_s is None])

    async def find(self, digest: bytes) -> Key | None:
        """Return the key of this hash."""
        query = "SELECT name, sha256, settings, expires_s FROM keys WHERE sha256 = ? AND revoked_s IS NULL"
        row = await self.turns.do(lambda: self.connection.execute(query, (digest,)).fetchone())
        if row is None:
            return None
        name, kept, settings, expires_s = row
        return Key.made(name, kept, decoded(settings), expires_s=expires_s)

    async def close(self) -> None:
        """Close the file."""
        self.connection.close()

    async def _execute(self, query: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        return await self.turns.do(lambda: self.connection.execute(query, values))


@final
class Remembered:
    """Keys of a store that were looked up lately, and hashes that were in vain; both are bounded.

    Parameters
    ----------
    store:
        Where keys are kept.
    clock:
        What time it is.
    refresh_s:
        Seconds after which one is looked up again.
    """

    def __init__(self, *, store: KeyStore, clock: Clock, refresh_s: float) -> None:
        self.store = store
        self.clock = clock
        self.refresh_s = refresh_s
        self._found: OrderedDict[bytes, tuple[float, Key | None]] = OrderedDict()

    async def find(self, digest: bytes) -> Key | None:
        """Return the key of this hash, as it was at most `refresh_s` ago."""
        now_s = self.clock.monotonic_s()
        known = self._found.get(digest)
        if known is not None and now_s - known[0] < self.refresh_s:
            return known[1]
        try:
            key = await self.store.find(digest)
        except ApiError:
            # A store that is away for a while must not lock out who was let in a moment ago.
            if known is None:
                raise
            return known[1]
        self._found[digest] = now_s, key
        self._found.move_to_end(digest)
        while len(self._found) > _MAX_REMEMBERED:
            self._found.popitem(last=False)
        return key


def prepared(name: str, settings: KeySettings) -> tuple[str, bytes]:
    """Return a new secret, and what is kept; raises `InputError` for what is no name or goal."""
    if not name or name != name.strip() or not name.isprintable():
        raise InputError(
            sentence("the name of a key", allowed="printable text", got=name, do="choose another name")
        )
    settings.check_goal(f"the goal of the key {name!r}")
    return new_secret(), msgspec.json.encode(settings)


def record_of(
    name: str,
    hint: str,
    settings: bytes,
    created_s: float,
    expires_s: float | None,
    revoked_s: float | None,
) -> KeyRecord:
    """Return a row of the store as people see it."""
    return KeyRecord(
        name=name,
        hint=hint,
        settings=decoded(settings),
        created_s=created_s,
        expires_s=expires_s,
        revoked_s=revoked_s,
    )


def decoded(settings: bytes) -> KeySettings:
    """Return what a key allows, as it was kept."""
    return msgspec.json.decode(settings, type=KeySettings)


def name_in_use(name: str) -> InputError:
    """Return the error for a second key of one name; a revoked one keeps its name, for its rows have it."""
    what = f"there is a key called {name!r} already"
    return InputError(sentence(what, allowed="a new name", do="choose another name; revoked ones stay taken"))


def no_such_key(name: str, known: list[str]) -> InputError:
    """Return the error for a name that no key has."""
    return InputError(
        sentence(
            f"no key in force is called {name!r}", allowed="one of the store", do=did_you_mean(name, known)
        )
    )
