"""This module holds the settings of keys: who may ask, for what, how often, and for how much."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from turnout.core.errors import ConfigError, InputError, sentence
from turnout.gateway.settings import Count, GoalSettings, Name, Seconds, Settings

Dial = Literal["quality_floor", "usd_per_1k", "usd_per_quality"]
Period = Literal["day", "month", "total"]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class KeySettings(Settings, frozen=True, kw_only=True, omit_defaults=True):
    """One key of the file: its secret by reference or by hash, and what it allows."""

    secret: Name | None = None
    """Where the secret is: `env:NAME` or `file:PATH`; either this or `sha256`."""
    sha256: Digest | None = None
    """SHA-256 of the secret, in 64 hex digits."""
    tenant: Name | None = None
    """Whose rows the key's requests are; none means the key's own name."""
    models: list[Name] | None = None
    """Model names that may be asked for; none means all."""
    dials: list[Dial] | None = None
    """Dials that a request may set; none means all, an empty list none."""
    goal: GoalSettings | None = None
    """The dial where a request does not set one; none means that of the file."""
    budget_usd: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Most USD in a period; what an answer may cost is reserved before anybody is asked."""
    budget_period: Period = "month"
    """When the budget starts anew, in UTC; `total` never does."""
    requests_per_min: Count | None = None
    """Most requests in a minute."""
    tokens_per_min: Count | None = None
    """Most tokens in a minute, input and output."""
    is_admin: bool = False
    """Whether it opens the paths for those who run the gateway."""

    def check(self, name: str) -> None:
        """Raise `ConfigError` where the section `keys.NAME` contradicts itself."""
        if (self.secret is None) == (self.sha256 is None):
            raise ConfigError(
                sentence(
                    f"the section 'keys.{name}' needs one of 'secret' and 'sha256'",
                    allowed="a reference to the secret, or its hash",
                    got="neither" if self.secret is None else "both",
                    do="keep one; `turnout keys hash` makes the hash",
                )
            )
        self.check_goal(f"the section 'keys.{name}.goal'")

    def check_goal(self, where: str) -> None:
        """Raise `ConfigError` where the goal is none."""
        try:
            _ = None if self.goal is None else self.goal.goal()
        except InputError as error:
            raise ConfigError(f"{where} is wrong; {error}; keep one term, within its range") from error


class AuthSettings(Settings, frozen=True, kw_only=True):
    """How clients are told apart."""

    required: bool = False
    """Whether a client needs a key; a section `keys.NAME` says so too."""
    path: Name = "turnout-keys.sqlite"
    """SQLite file of the keys that `turnout keys create` makes, and of what every key has spent."""
    refresh_s: Seconds = 5.0
    """Seconds after which a key of the store is looked up again, so that a revoked one stops."""
    reserve_output_tokens: Count = 4096
    """Output tokens that are reserved for an answer to which neither client nor candidate sets a limit."""
