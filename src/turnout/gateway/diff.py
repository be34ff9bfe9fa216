"""This module compares two configurations, key by key: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import msgspec

from turnout.gateway.config import Config

ABSENT = "not set"

_HIDDEN = ("sha256",)
_RESTART = (
    "server.host",
    "server.port",
    "server.drain_s",
    "ledger.path",
    "shared.redis",
    "shared.redis_prefix",
    "shared.postgres",
)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One key that differs; a default counts as its value."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.after!r}"

    @property
    def needs_restart(self) -> bool:
        """Whether a running gateway cannot take it over."""
        return self.key in _RESTART


def differences(before: Config, after: Config) -> list[Change]:
    """Return every key that differs, in the order of the file; a hash is said to differ and not shown."""
    old, new = dict(_flat(msgspec.to_builtins(before))), dict(_flat(msgspec.to_builtins(after)))
    keys = dict.fromkeys([*old, *new])
    return [
        Change(key=key, before=_shown(key, old), after=_shown(key, new))
        for key in keys
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    ]


def _flat(value: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        key = f"{where}{_quoted(name)}"
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{key}.")
        elif item is not None and item != {}:
            yield key, item


def _quoted(name: str) -> str:
    """Return a key as TOML writes it."""
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'


def _shown(key: str, values: Mapping[str, Any]) -> Any:
    if key not in values:
        return ABSENT
    return "(a hash)" if key.rpartition(".")[2] in _HIDDEN else values[key]
