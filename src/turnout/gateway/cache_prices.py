"""This module knows what a prompt cache costs where a price card does not say it.

Anthropic's price list has multiples of the price of input, the same for every model: 1.25 for what is kept
for 5 minutes, 2 for an hour, 0.1 for what is read
(https://platform.claude.com/docs/en/about-claude/pricing, heading "Prompt caching", as other public price
tables repeat it; state of November 2026).
"""

from __future__ import annotations

import dataclasses

from turnout.core.candidate import PriceCard

OF_INPUT = 1.25
OF_INPUT_1H = 2.0
OF_INPUT_READ = 0.1


def with_writes(card: PriceCard) -> PriceCard:
    """Return a card that says what a write costs: its own prices, else multiples of input."""
    plain, told, told_1h = (
        card.input_usd_per_mtok,
        card.cache_write_usd_per_mtok,
        card.cache_write_1h_usd_per_mtok,
    )
    return dataclasses.replace(
        card,
        cache_write_usd_per_mtok=OF_INPUT * plain if told is None else told,
        cache_write_1h_usd_per_mtok=OF_INPUT_1H * plain if told_1h is None else told_1h,
    )


def with_reads(card: PriceCard) -> PriceCard:
    """Return a card that says what a read costs: its own price, else a multiple of input."""
    if card.cached_usd_per_mtok is not None:
        return card
    return dataclasses.replace(card, cached_usd_per_mtok=OF_INPUT_READ * card.input_usd_per_mtok)


def says_writes(card: PriceCard, *, has_1h: bool) -> bool:
    """Whether a card's own prices say what a write costs."""
    told_1h = not has_1h or card.cache_write_1h_usd_per_mtok is not None
    return card.cache_write_usd_per_mtok is not None and told_1h
