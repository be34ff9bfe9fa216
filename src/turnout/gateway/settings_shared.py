"""This module holds the settings of what gateways on several hosts share."""

from __future__ import annotations

from urllib.parse import urlsplit

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.secret import check_reference, read_secret
from turnout.gateway.settings import Name, Seconds, Settings

_SCHEMES = {"redis": ("redis", "rediss", "unix"), "postgres": ("postgresql", "postgres")}


class SharedSettings(Settings, frozen=True, kw_only=True):
    """Servers that several hosts use together; without them, a gateway needs no other service."""

    redis: Name | None = None
    """Redis that counts spend and rates and knows which breakers are open; a URL, or a reference to one."""
    redis_prefix: Name = "turnout"
    """How the names of its entries begin."""
    redis_timeout_s: Seconds = 0.5
    """Longest wait of a request for Redis."""
    fail_open: bool = False
    """Whether requests pass uncounted while Redis is away; otherwise keys with a limit are refused."""
    postgres: Name | None = None
    """PostgreSQL that keeps keys and every gateway's rows; a URL, or a reference to one."""

    @property
    def central(self) -> str | None:
        """URL of the PostgreSQL; None without one. Raises `ConfigError` where its place holds none."""
        return None if self.postgres is None else read_url(self.postgres, "shared.postgres")

    def check(self) -> None:
        """Raise `ConfigError` for what is no URL, or holds a password."""
        for name, schemes in _SCHEMES.items():
            value: str | None = getattr(self, name)
            if value is None:
                continue
            url = urlsplit(value)
            if url.scheme not in schemes:
                check_reference(value, f"shared.{name}")
            elif url.password is not None:
                raise ConfigError(
                    sentence(
                        f"the setting 'shared.{name}' holds a password",
                        allowed="a URL without one, or env:NAME or file:PATH for a whole URL",
                        do="name the place of the URL",
                    )
                )


def read_url(value: str, where: str) -> str:
    """Return the URL that a setting is or names; raises `ConfigError`."""
    is_url = any(value.startswith(f"{scheme}:") for schemes in _SCHEMES.values() for scheme in schemes)
    return value if is_url else read_secret(value, where)
