"""This module is one key: who asks, and what that allows; it knows the secret's hash, never the secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self, final

from turnout.core.budget import Goal
from turnout.gateway.settings_keys import KeySettings, Period

PREFIX = "tk-"
"""How secrets begin that turnout makes, so that a leaked one is recognised."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Whoever holds the secret of this hash."""

    name: str
    tenant: str
    digest: bytes = field(repr=False)
    """SHA-256 of the secret. A secret of 256 random bits needs no salt and no slow hash."""
    models: frozenset[str] | None
    dials: frozenset[str] | None
    goal: Goal | None
    budget_usd: float | None
    budget_period: Period
    requests_per_min: int | None
    tokens_per_min: int | None
    is_admin: bool
    expires_s: float | None = None

    @classmethod
    def made(cls, name: str, digest: bytes, settings: KeySettings, *, expires_s: float | None = None) -> Self:
        """Return the key that a section describes."""
        return cls(
            name=name,
            tenant=name if settings.tenant is None else settings.tenant,
            digest=digest,
            models=None if settings.models is None else frozenset(settings.models),
            dials=None if settings.dials is None else frozenset(settings.dials),
            goal=None if settings.goal is None else settings.goal.goal(),
            budget_usd=settings.budget_usd,
            budget_period=settings.budget_period,
            requests_per_min=settings.requests_per_min,
            tokens_per_min=settings.tokens_per_min,
            is_admin=settings.is_admin,
            expires_s=expires_s,
        )

    @property
    def is_rated(self) -> bool:
        """Whether requests or tokens are counted by the minute."""
        return self.requests_per_min is not None or self.tokens_per_min is not None

    def fits(self, digest: bytes) -> bool:
        """Compare in a time that does not depend on where two hashes differ."""
        return hmac.compare_digest(self.digest, digest)


def digest_of(secret: str) -> bytes:
    """Return the hash that stands for a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def period_of(period: Period, now_s: float) -> tuple[str, float]:
    """Return the name of the running period, and the seconds until the next one; infinity for `total`."""
    now = datetime.fromtimestamp(now_s, UTC)
    if period == "total":
        return "total", float("inf")
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return f"{now:%Y-%m-%d}", (start + timedelta(days=1) - now).total_seconds()
    following = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"{now:%Y-%m}", (following - now).total_seconds()
