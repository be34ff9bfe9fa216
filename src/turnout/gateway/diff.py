"""This module compares two configurations, key by key: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import msgspec

from turnout.gateway.config import Config

ABSENT = "not set"

_HIDDEN = ("sha256",)
_VEILED = ("request_headers", "system_prompt")
_NOT_SHOWN = "(not shown)"
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
    """Return every key that differs, in the order of the file; of what may be a secret, only that it does."""
    old, new = dict(_flat(msgspec.to_builtins(before))), dict(_flat(msgspec.to_builtins(after)))
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key, ABSENT) != new.get(key, ABSENT)]
    return [_change(key, _shown(key, old), _shown(key, new)) for key in changed]


def _change(key: str, before: Any, after: Any) -> Change:
    is_told = before != after
    return Change(key=key, before=before, after=after if is_told else "the same but for what is not shown")


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
    return "(a hash)" if key.rpartition(".")[2] in _HIDDEN else _veiled(values[key])


def _veiled(value: Any) -> Any:
    """Return a value without what may be a secret: headers for others, and instructions."""
    if isinstance(value, list):
        return [_veiled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _hidden(item) if name in _VEILED else _veiled(item) for name, item in value.items()}


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return dict.fromkeys(value, _NOT_SHOWN)
    return value if value is None else _NOT_SHOWN
