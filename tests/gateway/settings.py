"""Settings that stand a gateway in front of an upstream."""

from __future__ import annotations

from pathlib import Path

from turnout.gateway.config import BreakerSettings, Config, LedgerSettings, RoutingSettings, ServerSettings
from turnout.gateway.settings_providers import OpenAISettings


def make_config(base_url: str, ledger: Path, **changes: object) -> Config:
    """Return settings; `changes` go to the provider."""
    provider = OpenAISettings(base_url=base_url, **changes)  # type: ignore[arg-type]
    return Config(
        deployment="given in memory",
        providers={"main": provider},
        server=ServerSettings(port=0, max_body_mb=4.0),
        # One gateway serves many tests of faults: a retry or an open breaker of one must not meet the next.
        routing=RoutingSettings(retries=0),
        breakers=BreakerSettings(failures=100_000, min_calls=100_000, max_cooldown_s=1e-6, max_open_s=1e-6),
        ledger=LedgerSettings(path=str(ledger)),
    )
