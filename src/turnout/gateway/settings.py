"""This module holds what the sections of the settings have in common."""

from __future__ import annotations

import datetime
import math
from typing import Annotated, Any

import msgspec

from turnout.core.budget import Goal
from turnout.core.errors import ConfigError, sentence

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every section has in common: it cannot change, and it knows its keys."""


class GoalSettings(Settings, frozen=True, kw_only=True):
    """The dial where a request does not set one; at most one of the three."""

    quality_floor: float | None = None
    """Share of the best single model's quality to keep."""
    usd_per_1k: float | None = None
    """Spend cap in USD per 1,000 requests."""
    usd_per_quality: float | None = None
    """What one more right answer is worth in USD."""

    def goal(self) -> Goal:
        """Return the core's goal; raises `InputError` where two terms are given or one is out of range."""
        return Goal(
            quality_floor=self.quality_floor,
            usd_per_1k=self.usd_per_1k,
            usd_per_quality=self.usd_per_quality,
        )


def check_label(where: str, name: str, *, without: str = "") -> None:
    """Raise `ConfigError` for a name that cannot stand in a header, a log line and a list of names.

    `without` holds further characters that it must not have.
    """
    if name and name.isprintable() and name == name.strip() and not set(name) & set(without):
        return
    more = f", and without {' or '.join(map(repr, without))}" if without else ""
    raise ConfigError(
        sentence(
            f"the setting {where!r} is no name for headers and logs",
            allowed=f"printable characters, none of them a blank at either end{more}",
            got=repr(name),
            do="rename it",
        )
    )


def check_plain(where: str, value: Any) -> None:
    """Raise `ConfigError` for what JSON has no word for: a date, NaN or infinity, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            check_plain(f"{where}.{name}" if where else name, inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            check_plain(f"{where}[{place}]", inner)
    elif isinstance(value, datetime.date | datetime.time) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ConfigError(
            sentence(
                f"the setting {where!r} is no plain value",
                allowed="a text, a finite number, true or false, or lists and tables of these",
                got=value,
                do="write a finite number, or put a date into quotes",
            )
        )
