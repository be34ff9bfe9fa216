"""This module connects to the Redis that gateways share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.clock import Clock
from turnout.core.errors import ConfigError, missing_extra, sentence
from turnout.gateway.limits import Limits
from turnout.gateway.settings_shared import SharedSettings, read_url

if TYPE_CHECKING:
    from redis.asyncio import Redis


def redis_client(shared: SharedSettings) -> Redis:
    """Return a client, which connects when it is first asked; raises `ConfigError` for what is no URL."""
    try:
        from redis.asyncio import Redis
    except ImportError as error:
        raise missing_extra("redis", feature="shared.redis", extra="scale") from error
    if shared.redis is None:
        raise RuntimeError("a client is asked for where the settings name a Redis")
    wait_s = shared.redis_timeout_s
    url = read_url(shared.redis, "shared.redis")
    return Redis.from_url(url, socket_timeout=wait_s, socket_connect_timeout=wait_s)


async def check_redis(shared: SharedSettings) -> tuple[str, ...]:
    """Require that the Redis of the settings answers now; where `fail_open` is on, only say that it does not.

    Raises `ConfigError`: what is away at the start is more often a wrong address than a short rest.
    """
    if shared.redis is None:
        return ()
    client = redis_client(shared)
    from redis.exceptions import RedisError  # after the client, which says how to install it

    try:
        await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        message = sentence(
            "the Redis of 'shared.redis' does not answer",
            allowed="a server that is there when the gateway starts",
            got=str(error),
            do="check the URL and the server, or set shared.fail_open to start without it",
        )
        if not shared.fail_open:
            raise ConfigError(message) from error
        return (
            f"requests pass uncounted, and breakers and pins are not shared, until it is there: {message}",
        )
    finally:
        await client.aclose()
    return ()


def redis_limits(shared: SharedSettings, clock: Clock) -> Limits:
    """Return the counts in Redis."""
    from turnout.gateway.limits_redis import RedisLimits

    return RedisLimits(
        client=redis_client(shared),
        clock=clock,
        timeout_s=shared.redis_timeout_s,
        fail_open=shared.fail_open,
        prefix=shared.redis_prefix,
    )
