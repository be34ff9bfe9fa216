"""This module says who is asked: candidates of a gateway's settings, or models behind any compatible URL."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from turnout.core.candidate import Candidate, PriceCard, check_unique
from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.gateway.build import load_deployment
from turnout.gateway.config import Config
from turnout.gateway.prices import prices_of, read_prices
from turnout.gateway.providers import build
from turnout.gateway.providers.base import Provider, places_of, unrouted_of
from turnout.gateway.settings_prices import PricesSettings
from turnout.gateway.settings_providers import OpenAISettings

_NAME = re.compile(r"(?P<model>.+?)(?:\[(?P<extras>[^\[\]]+)\])?")
_EXTRAS = ("effort", "max_output_tokens", "adapter")
_FORM = "MODEL, or MODEL[effort=low,max_output_tokens=500,adapter=law] with any of the three"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One candidate, and who serves it."""

    candidate: Candidate
    provider: Provider
    model: str
    """The upstream's name for it."""

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name


def members_of_config(config: Config, names: Sequence[str] = ()) -> tuple[Member, ...]:
    """Return the pool of a gateway: its deployment's candidates, or without one those of its sections.

    `names` leaves the others out. A model of the section `models` is in the pool where there is no deployment
    yet, or where it is named. Raises `ConfigError`, `ArtifactError`, or `UnknownNameError` for other names.
    """
    if config.deployment is not None and Path(config.deployment).exists():
        pool = list(load_deployment(config.deployment).candidates)
        outside = unrouted_of(config, [one.name for one in pool])
        pool += [one for name, one in outside.items() if name in names]
    else:
        pool = [parse_candidate(name) for name in config.candidates] + list(unrouted_of(config).values())
    if not pool:
        raise InputError(
            sentence(
                "the settings name nobody to ask",
                allowed="a deployment that is there, or sections 'candidates.NAME' or 'models.NAME'",
                got=config.deployment or "neither",
                do="add a section for every model",
            )
        )
    prices = prices_of(config, pool, ())
    known = {one.name: one if prices is None else prices.priced(one) for one in pool}
    for name in names:
        if name not in known:
            raise UnknownNameError(
                sentence(f"the settings name no candidate {name!r}", do=did_you_mean(name, known))
            )
    chosen = [known[name] for name in names or known]
    wanted = {config.provider_of(one.name) for one in chosen}
    providers = {name: build(name, config.providers[name]) for name in wanted}
    return _members(chosen, places_of(config, chosen, providers))


def members_of_url(
    base_url: str,
    names: Sequence[str],
    *,
    api_key_env: str | None = None,
    timeout_s: float = 300.0,
    provider_name: str = "server",
) -> tuple[Member, ...]:
    """Return models of one OpenAI-compatible server; raises `ConfigError` for a URL or a key that is none."""
    if not names:
        raise InputError(
            sentence("a server without a model", allowed="--model NAME, once for each model", do="name one")
        )
    settings = OpenAISettings(base_url=base_url, api_key_env=api_key_env, first_byte_s=timeout_s)
    settings.check(provider_name)
    provider = build(provider_name, settings)
    candidates = [parse_candidate(name) for name in names]
    return _members(candidates, {one.name: (provider, provider.model_name(one)) for one in candidates})


def _members(
    candidates: Iterable[Candidate], places: Mapping[str, tuple[Provider, str]]
) -> tuple[Member, ...]:
    pool = tuple(candidates)
    check_unique("the pool", pool)
    return tuple(
        Member(candidate=one, provider=places[one.name][0], model=places[one.name][1]) for one in pool
    )


def with_prices(
    members: Sequence[Member], cards: Mapping[str, PriceCard], path: str | Path | None = None
) -> tuple[Member, ...]:
    """Return the members under the tariffs of a price file and of `cards` (by name or model), which win.

    Raises `ConfigError` for a file that is none, `UnknownNameError` for a tariff of nobody.
    """
    candidates = tuple(member.candidate for member in members)
    prices = read_prices(PricesSettings(path=None if path is None else str(path)), candidates)
    known = {candidate.name for candidate in candidates} | {candidate.model for candidate in candidates}
    for name in cards:
        if name not in known:
            raise UnknownNameError(
                sentence(f"--price names nobody of the pool: {name!r}", do=did_you_mean(name, known))
            )

    def priced(candidate: Candidate) -> Candidate:
        found = candidate if prices is None else prices.priced(candidate)
        card = cards.get(found.name, cards.get(found.model))
        return found if card is None else found.with_price_card(card)

    return tuple(dataclasses.replace(member, candidate=priced(member.candidate)) for member in members)


def parse_candidate(name: str) -> Candidate:
    """Return the candidate of a name such as `gpt-5[effort=low]`; raises `InputError`."""
    found = _NAME.fullmatch(name.strip())
    pairs = [] if found is None or found["extras"] is None else found["extras"].split(",")
    extras = dict(pair.strip().partition("=")[::2] for pair in pairs)
    if found is None or len(extras) < len(pairs) or not all(extras.get(key) for key in extras):
        raise InputError(sentence("the name of a candidate", allowed=_FORM, got=name))
    for key in extras:
        if key not in _EXTRAS:
            raise InputError(
                sentence(
                    f"the name of a candidate: {key!r}",
                    allowed=_FORM,
                    got=name,
                    do=did_you_mean(key, _EXTRAS),
                )
            )
    budget = extras.get("max_output_tokens")
    if budget is not None and not (budget.isascii() and budget.isdigit() and int(budget) > 0):
        raise InputError(
            sentence("the name of a candidate: max_output_tokens", allowed="a count", got=budget)
        )
    return Candidate(
        model=found["model"].strip(),
        effort=extras.get("effort"),
        adapter=extras.get("adapter"),
        max_output_tokens=None if budget is None else int(budget),
    )
