"""This module reads a price file in the gateway's format (docs/config.md) for tables that count tokens.

The gateway checks the same file more strictly (`turnout.gateway.prices`); a room of this row cannot see it.
"""

from __future__ import annotations

import math
from pathlib import Path

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import TableError, sentence
from turnout.datasets.reading import json_document, number

_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")


def read_tariffs(path: Path) -> dict[str, Candidate]:
    """Return a candidate with its price card for each model of the file."""
    document = json_document(path)
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
        raise TableError(
            sentence(
                f"{str(path)!r} is no price file",
                allowed='JSON such as {"date": "2026-11-01", "models": {"NAME": {"input_usd_per_mtok": 1.0, '
                '"output_usd_per_mtok": 2.0}}}',
                got=[*document] if isinstance(document, dict) else type(document).__name__,
            )
        )
    return {
        name: Candidate(model=name, price_card=_card(path, name, entry)) for name, entry in models.items()
    }


def _card(path: Path, name: str, entry: dict[str, object]) -> PriceCard:
    found = {field: number(f"{str(path)!r}: {field} of {name!r}", entry.get(field)) for field in _PRICES}
    for field, usd in found.items():
        if math.isnan(usd) or usd < 0.0:
            raise TableError(
                sentence(
                    f"{str(path)!r}: {field} of {name!r}",
                    allowed="USD per million tokens, at least 0",
                    got=entry.get(field),
                    do="write it, or leave the model out: unknown is not free",
                )
            )
    return PriceCard(**found)
