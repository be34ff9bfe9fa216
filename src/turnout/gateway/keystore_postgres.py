"""This module keeps keys in PostgreSQL: one set of keys for gateways on many hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from turnout.core.clock import Clock
from turnout.core.errors import ConfigError, missing_extra, sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key, digest_of
from turnout.gateway.keystore import (
    HINT_CHARS,
    KeyRecord,
    KeyStore,
    decoded,
    name_in_use,
    no_such_key,
    prepared,
    record_of,
)
from turnout.gateway.settings_keys import KeySettings

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_TABLE = """
CREATE TABLE IF NOT EXISTS turnout_keys (
    name TEXT PRIMARY KEY, sha256 BYTEA NOT NULL UNIQUE, hint TEXT NOT NULL, settings BYTEA NOT NULL,
    created_s DOUBLE PRECISION NOT NULL, expires_s DOUBLE PRECISION, revoked_s DOUBLE PRECISION
)
"""
_LOCK = 7_402_871
"""Number of the advisory lock under which tables are made."""


@final
class PostgresKeyStore(KeyStore):
    """Keys in a PostgreSQL.

    Parameters
    ----------
    url:
        Where it is.
    clock:
        What time it is.
    timeout_s:
        Longest wait for an answer.
    """

    def __init__(self, *, url: str, clock: Clock, timeout_s: float = 5.0) -> None:
        self.url = url
        self.clock = clock
        self.timeout_s = timeout_s
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Connect and make the table; raises `ConfigError` where that fails."""
        try:
            await self._run("SELECT 1", ())
        except ApiError as error:
            raise ConfigError(
                sentence(
                    "the keys of 'shared.postgres' cannot be reached",
                    allowed="a PostgreSQL that takes the connection",
                    got=str(error.__cause__).strip(),
                    do="check the URL and the server",
                )
            ) from error

    async def create(self, name: str, settings: KeySettings, *, expires_s: float | None = None) -> str:
        """Keep a new key and return its secret."""
        secret, kept = prepared(name, settings)
        row = (name, digest_of(secret), secret[:HINT_CHARS], kept, self.clock.now_s(), expires_s)
        query = "INSERT INTO turnout_keys VALUES (%s, %s, %s, %s, %s, %s, NULL) ON CONFLICT DO NOTHING"
        if await self._run(query + " RETURNING name", row) == []:
            raise name_in_use(name)
        return secret

    async def listed(self) -> list[KeyRecord]:
        """Return every key by name."""
        query = "SELECT name, hint, settings, created_s, expires_s, revoked_s FROM turnout_keys ORDER BY name"
        return [record_of(*row) for row in await self._run(query, ())]

    async def revoke(self, name: str) -> None:
        """End a key for good."""
        query = "UPDATE turnout_keys SET revoked_s = %s WHERE name = %s AND revoked_s IS NULL RETURNING name"
        if await self._run(query, (self.clock.now_s(), name)) == []:
            raise no_such_key(name, [one.name for one in await self.listed() if one.revoked_s is None])

    async def find(self, digest: bytes) -> Key | None:
        """Return the key of this hash; raises `ApiError` (503) while PostgreSQL is away."""
        query = "SELECT name, sha256, settings, expires_s FROM turnout_keys WHERE sha256 = %s"
        rows = await self._run(query + " AND revoked_s IS NULL", (digest,))
        if not rows:
            return None
        name, kept, settings, expires_s = rows[0]
        return Key.made(name, bytes(kept), decoded(bytes(settings)), expires_s=expires_s)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _run(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; a connection that was lost is made anew, once."""
        import psycopg

        try:
            async with asyncio.timeout(self.timeout_s), self._lock:
                for is_last in (False, True):
                    try:
                        connection = await self._connected()
                        cursor = await connection.execute(query, values)
                        return await cursor.fetchall() if cursor.description else []
                    except psycopg.OperationalError:
                        await self.close()
                        if is_last:
                            raise
            raise RuntimeError("a loop of two tries returns or raises")
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise _away() from error

    async def _connected(self) -> AsyncConnection[tuple[Any, ...]]:
        if self._connection is None:
            try:
                import psycopg
            except ImportError as error:
                raise missing_extra("psycopg", feature="shared.postgres", extra="scale") from error
            connection = await psycopg.AsyncConnection.connect(
                self.url, autocommit=True, client_encoding="utf8"
            )
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                await connection.execute(_TABLE)
            self._connection = connection
        return self._connection


def _away() -> ApiError:
    message = sentence(
        "the keys cannot be looked up",
        allowed="requests with a key that was seen lately while PostgreSQL is away",
        do="ask again; see shared.postgres",
    )
    headers = [(b"retry-after", b"1")]
    return ApiError(503, message, code="keys_unavailable", kind="server_error", headers=headers)
