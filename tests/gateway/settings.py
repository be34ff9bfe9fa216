"""Settings that stand a gateway in front of an upstream."""

from __future__ import annotations

from pathlib import Path

from turnout.gateway.config import Config, LedgerSettings, OpenAISettings, ServerSettings


def make_config(base_url: str, ledger: Path, **changes: object) -> Config:
    """Return settings; `changes` go to the provider."""
    provider = OpenAISettings(base_url=base_url, **changes)  # type: ignore[arg-type]
    return Config(
        deployment="given in memory",
        providers={"main": provider},
        server=ServerSettings(port=0, max_body_mb=4.0),
        ledger=LedgerSettings(path=str(ledger)),
    )
