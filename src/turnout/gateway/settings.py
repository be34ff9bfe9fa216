"""This module holds what the sections of the settings have in common."""

from __future__ import annotations

from typing import Annotated

import msgspec

from turnout.core.budget import Goal

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
