"""This module holds the settings of the price file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from turnout.gateway.settings import Name, Settings


class PricesSettings(Settings, frozen=True, kw_only=True):
    """What models charge, where that has changed since the deployment was fitted."""

    path: Name | None = None
    """JSON file with a date and a price card for each model; none means the deployment's own cards."""
    warn_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """Days after which its prices count as stale, which the start says."""
