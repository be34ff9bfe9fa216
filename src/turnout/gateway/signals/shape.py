"""This module reads the shape of a request: its length, what it needs, and whose it is."""

from __future__ import annotations

from typing import final

from turnout.core.candidate import CAPABILITIES
from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.gateway.settings_signals import HeaderSettings, LengthSettings, NeedsSettings, TenantSettings
from turnout.gateway.signals.base import Facts, Finding, Signal


@final
class LengthSignal(Signal):
    """The size of the request."""

    def __init__(self, *, name: str, settings: LengthSettings) -> None:
        self.settings = settings
        bounds = (settings.min_tokens, settings.max_tokens, settings.min_turns, settings.max_turns)
        if all(bound is None for bound in bounds):
            raise ConfigError(
                sentence(
                    f"the section 'signals.{name}' bounds nothing",
                    allowed="at least one of min_tokens, max_tokens, min_turns, max_turns",
                    do="add one of them",
                )
            )

    def read(self, facts: Facts) -> Finding:
        """Return whether every bound holds."""
        request, own = facts.request, self.settings
        tokens_hold = _between(own.min_tokens, request.input_tokens, own.max_tokens)
        turns_hold = _between(own.min_turns, request.num_turns, own.max_turns)
        return Finding(
            holds=tokens_hold and turns_hold,
            value=float(request.input_tokens),
            note=f"{request.num_turns} user messages",
        )


def _between(low: int | None, value: int, high: int | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)


@final
class NeedsSignal(Signal):
    """What the request needs of a model."""

    def __init__(self, *, name: str, settings: NeedsSettings) -> None:
        self._needs = frozenset(settings.needs)
        for need in settings.needs:
            if need not in CAPABILITIES:
                raise ConfigError(
                    sentence(
                        f"the setting 'signals.{name}.needs' names nothing that a request can need",
                        allowed=", ".join(sorted(CAPABILITIES)),
                        got=need,
                        do=did_you_mean(need, CAPABILITIES),
                    )
                )

    def read(self, facts: Facts) -> Finding:
        """Return whether all of it is needed."""
        needs = facts.request.needs
        return Finding(holds=self._needs <= needs, value=", ".join(sorted(needs)) or None)


@final
class HeaderSignal(Signal):
    """A header that a proxy in front of the gateway sets, such as the groups of a user."""

    def __init__(self, *, name: str, settings: HeaderSettings) -> None:
        self._header = settings.header.lower().encode("latin-1", "replace")
        self._values = frozenset(value.strip().lower() for value in settings.values)

    def read(self, facts: Facts) -> Finding:
        """Return whether one of the values is in the header."""
        found: set[str] = set()
        for name, value in facts.headers:
            if name == self._header:
                found.update(part.strip().lower() for part in value.decode("latin-1").split(","))
        known = self._values & found
        return Finding(holds=bool(known), value=", ".join(sorted(known)) or None)


@final
class TenantSignal(Signal):
    """Whose request it is, as the client's key says."""

    def __init__(self, *, name: str, settings: TenantSettings) -> None:
        self._tenants = frozenset(settings.tenants)

    def read(self, facts: Facts) -> Finding:
        """Return whether it is one of the tenants."""
        return Finding(holds=facts.tenant in self._tenants, value=facts.tenant)
