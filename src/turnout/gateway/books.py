"""This module opens where keys and their spend are kept: a file of this machine, or what hosts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from turnout.core.clock import Clock
from turnout.gateway.config import Config
from turnout.gateway.keyfile import open_keyfile
from turnout.gateway.keystore import KeyStore, SqliteKeyStore
from turnout.gateway.limits import Limits
from turnout.gateway.limits_sqlite import SqliteLimits
from turnout.gateway.shared import redis_limits


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Where keys and their spend are kept."""

    keys: KeyStore
    limits: Limits

    async def close(self) -> None:
        """Close both."""
        await self.keys.close()
        await self.limits.close()


async def open_books(config: Config, clock: Clock) -> Books:
    """Open what the settings name; raises `ConfigError`."""
    shared = config.shared
    limits: Limits
    if shared.redis is None:
        limits = SqliteLimits(connection=open_keyfile(config.auth.path), clock=clock)
    else:
        limits = redis_limits(shared, clock)
    try:
        return Books(keys=await _open_keys(config, clock), limits=limits)
    except BaseException:
        await limits.close()
        raise


async def _open_keys(config: Config, clock: Clock) -> KeyStore:
    if (url := config.shared.central) is None:
        return SqliteKeyStore(connection=open_keyfile(config.auth.path), clock=clock)
    from turnout.gateway.keystore_postgres import PostgresKeyStore

    store = PostgresKeyStore(url=url, clock=clock)
    await store.open()
    return store
