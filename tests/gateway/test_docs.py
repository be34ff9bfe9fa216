"""docs/config.md has one heading per setting, in both directions, with the default in force."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from turnout.gateway.config import (
    BreakerSettings,
    Config,
    LedgerSettings,
    RoutingSettings,
    SequencerSettings,
    ServerSettings,
)
from turnout.gateway.settings import GoalSettings, Settings
from turnout.gateway.settings_cache import CacheSettings
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_prices import PricesSettings
from turnout.gateway.settings_providers import (
    AnthropicSettings,
    AzureSettings,
    BedrockSettings,
    GeminiSettings,
    LocalSettings,
    OpenAISettings,
    ReplaySettings,
)
from turnout.gateway.settings_rollout import RolloutSettings
from turnout.gateway.settings_rules import RuleSettings
from turnout.gateway.settings_shared import SharedSettings
from turnout.gateway.settings_signals import SIGNAL_KINDS
from turnout.gateway.settings_telemetry import TelemetrySettings

ROOT = Path(__file__).parents[2]
SECTIONS: dict[str, type[Settings]] = {
    "": Config,
    "server.": ServerSettings,
    "routing.": RoutingSettings,
    "goal.": GoalSettings,
    "breakers.": BreakerSettings,
    "ledger.": LedgerSettings,
    "providers.NAME.": OpenAISettings,
    "providers.NAME. ": ReplaySettings,
    "providers.NAME.   ": AnthropicSettings,
    "providers.NAME.    ": AzureSettings,
    "providers.NAME.     ": GeminiSettings,
    "providers.NAME.      ": BedrockSettings,
    "providers.NAME.  ": LocalSettings,
    "candidates.NAME.": CandidateSettings,
    "models.NAME.": ModelSettings,
    "auth.": AuthSettings,
    "shared.": SharedSettings,
    "prices.": PricesSettings,
    "telemetry.": TelemetrySettings,
    "keys.NAME.": KeySettings,
    "keys.NAME.goal.": GoalSettings,
    "sequencers.NAME.": SequencerSettings,
    "rules.": RuleSettings,
    "rules.cache.": CacheSettings,
    "rollout.": RolloutSettings,
    **{f"signals.NAME.{' ' * place}": kind for place, kind in enumerate(SIGNAL_KINDS.values())},
}


def settings() -> dict[str, object]:
    """Return every key of the file with its default."""
    found: dict[str, object] = dict.fromkeys(["providers.NAME.kind", "signals.NAME.kind"], msgspec.NODEFAULT)
    for prefix, kind in SECTIONS.items():
        for field in msgspec.structs.fields(kind):
            is_section = any(key.startswith(f"{prefix}{field.name}.") for key in SECTIONS)
            # What may be absent, or is a list, has a heading of its own besides.
            is_section = is_section and field.name not in ("rules", "cache")
            if not is_section:
                has_factory = field.default_factory is not msgspec.NODEFAULT
                default = field.default_factory() if has_factory else field.default
                key = prefix.strip() + field.name
                assert found.setdefault(key, default) == default, f"{key} has two defaults"
    return found


def documented() -> dict[str, str]:
    """Return the text under each heading that is a key."""
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    parts = re.split(r"^### `([^`]+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_setting_has_a_heading_and_every_heading_a_setting() -> None:
    assert sorted(documented()) == sorted(settings())


def test_the_documented_defaults_are_the_ones_in_force() -> None:
    pages = documented()
    for key, default in settings().items():
        if default is msgspec.NODEFAULT:
            expected = "required"
        elif default is None:
            expected = "not set"
        else:
            expected = str(default).lower() if isinstance(default, bool) else str(default)
        shown = re.search(r"Default: `?([^`\n]*?)`?\.?$", pages[key], flags=re.MULTILINE)
        assert shown is not None, f"{key} has no line `Default: ...`"
        assert shown.group(1) == expected, key
