"""This module reads a price file: what models charge, and of which day that is.

The file is JSON: `{"date": "2026-11-01", "models": {"NAME": {"input_usd_per_mtok": 1.0, ...}}}`. A name is a
candidate's own, or that of its model. What it says stands in the place of the deployment's price cards
wherever money is counted: ledger, budgets, sequencers. What the router expects was learned, and stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Annotated, final

import msgspec

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.gateway.config import Config
from turnout.gateway.select import Selection
from turnout.gateway.settings_prices import PricesSettings
from turnout.policies.deployment import Deployment

_ZONES = timedelta(days=1)
"""Where it is tomorrow already."""
_MAX_SHOWN = 4
"""Names in a notice."""

_Usd = Annotated[float, msgspec.Meta(ge=0)]


class _Card(msgspec.Struct, forbid_unknown_fields=True):
    input_usd_per_mtok: _Usd
    output_usd_per_mtok: _Usd
    cached_usd_per_mtok: _Usd | None = None
    cache_write_usd_per_mtok: _Usd | None = None
    cache_write_1h_usd_per_mtok: _Usd | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    date: date
    models: dict[str, _Card]
    source: str | None = None
    """Where the prices were read, for people."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Price cards that stand in the place of a deployment's own, by candidate name."""

    date: date | None
    """The file's; None where no file is named."""
    cards: dict[str, PriceCard]

    def priced(self, candidate: Candidate) -> Candidate:
        """Return a candidate with its card from here, if it has one."""
        card = self.cards.get(candidate.name)
        return candidate if card is None else dataclasses.replace(candidate, price_card=card)

    def applied(self, selection: Selection) -> Selection:
        """Return a selection whose candidates have these cards."""
        return msgspec.structs.replace(selection, ranked=tuple(map(self.priced, selection.ranked)))

    def age_days(self, now_s: float) -> float:
        """Return how old the prices of the file are; 0 for those of a day to come, and without a file."""
        if self.date is None:
            return 0.0
        midnight = datetime(self.date.year, self.date.month, self.date.day, tzinfo=UTC)
        return max(0.0, (now_s - midnight.timestamp()) / 86_400)


def prices_of(config: Config, pool: Sequence[Candidate], unrouted: Iterable[Candidate]) -> Prices | None:
    """Return what stands in the place of the deployment's cards, or None; raises `ConfigError`.

    Those are the tariffs that sections `models` state for candidates, and before them the file's prices.
    """
    own = {
        one.name: card
        for one in pool
        if one.name in config.models and (card := config.models[one.name].price_card) is not None
    }
    found = read_prices(config.prices, (*pool, *unrouted))
    if found is None:
        return Prices(date=None, cards=own) if own else None
    return Prices(date=found.date, cards={**own, **found.cards})


def read_prices(settings: PricesSettings, candidates: tuple[Candidate, ...]) -> Prices | None:
    """Return the prices of the file that the settings name, or None; raises `ConfigError`."""
    if settings.path is None:
        return None
    path = Path(settings.path)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            sentence(
                f"the prices {str(path)!r} cannot be read",
                allowed='JSON with "date" and "models", as docs/config.md says',
                got=got,
                do="correct the file",
            )
        ) from error
    known = {candidate.name for candidate in candidates} | {candidate.model for candidate in candidates}
    for name in found.models:
        if name not in known:
            raise ConfigError(
                sentence(
                    f"the prices {str(path)!r} name no candidate and no model by {name!r}",
                    allowed="names of models, of the deployment's candidates or of their models",
                    do=did_you_mean(name, known),
                )
            )
    cards = {name: PriceCard(**msgspec.structs.asdict(card)) for name, card in found.models.items()}
    by_name = {
        candidate.name: card
        for candidate in candidates
        if (card := cards.get(candidate.name, cards.get(candidate.model))) is not None
    }
    return Prices(date=found.date, cards=by_name)


def uncounted_notice(prices: Prices | None, deployment: Deployment) -> tuple[str, ...]:
    """Return what to say of candidates whose costs were learned, and whose requests nobody can charge.

    A table may record what answers cost without a tariff: then the dial knows money, and the ledger does not.
    """
    frontier = deployment.frontier
    if frontier is None:
        return ()
    cards = {} if prices is None else prices.cards
    names = [
        repr(candidate.name)
        for candidate, usd in zip(deployment.candidates, frontier.calibrated_usd_M, strict=True)
        if isfinite(usd) and candidate.price_card is None and candidate.name not in cards
    ]
    if not names:
        return ()
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    shown = f"{', '.join(names[:_MAX_SHOWN])}{more}"
    return (
        f"no tariff is known of {shown}: what requests to them cost stands neither in the ledger nor in "
        "budgets, and turnout whatif and retrain learn no cost from them; name a file of prices as "
        "prices.path, or input_usd_per_mtok and output_usd_per_mtok in a section models.NAME",
    )


def stale_notice(prices: Prices | None, settings: PricesSettings, now_s: float) -> tuple[str, ...]:
    """Return what to say of prices that are older than they may be, or not of today at all."""
    if prices is None or prices.date is None:
        return ()
    if prices.date > datetime.fromtimestamp(now_s, UTC).date() + _ZONES:
        return (
            f"the prices of {settings.path!r} are of {prices.date}, a day to come: they count from now on "
            "and are not stale before it; if they do not hold yet, put those of today in their place",
        )
    if prices.age_days(now_s) <= settings.warn_days:
        return ()
    return (
        f"the prices of {settings.path!r} are of {prices.date} and {int(prices.age_days(now_s))} days old: "
        "spend and budgets may be wrong; look them up again and set the new date",
    )
