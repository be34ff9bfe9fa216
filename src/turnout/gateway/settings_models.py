"""This module holds the settings of one model: where it is reached, what it charges, who stands in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from turnout.core.candidate import PriceCard
from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.gateway.settings import Name, Settings

if TYPE_CHECKING:
    from turnout.gateway.config import Config

Usd = Annotated[float, msgspec.Meta(ge=0)]

_PRICES = (
    "output_usd_per_mtok",
    "cached_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
)


class CandidateSettings(Settings, frozen=True, kw_only=True):
    """Where one candidate differs from the rest."""

    provider: Name | None = None
    """Provider that serves it; none means `default_provider`."""
    model: Name | None = None
    """The upstream's name for it; none means the candidate's model."""
    leave_out: list[Name] = msgspec.field(default_factory=list)
    """Fields of requests that it refuses, such as `temperature`; they are not sent to it."""
    fallbacks: list[Name] = msgspec.field(default_factory=list)
    """Who is asked, in this order, where a client names it and it does not answer."""


class ModelSettings(CandidateSettings, frozen=True, kw_only=True):
    """A model that is served by its name, with a router or without one."""

    input_usd_per_mtok: Usd | None = None
    """Tariff in USD per million input tokens; without it nothing is charged for."""
    output_usd_per_mtok: Usd = 0.0
    """Tariff in USD per million output tokens."""
    cached_usd_per_mtok: Usd | None = None
    """Tariff of input read from the provider's prompt cache; none means as input."""
    cache_write_usd_per_mtok: Usd | None = None
    """Tariff of input written to that cache; none means as the provider's kind is known to charge."""
    cache_write_1h_usd_per_mtok: Usd | None = None
    """Tariff of input written to be kept for an hour; none means as other writes."""

    @property
    def price_card(self) -> PriceCard | None:
        """The tariff; None where it is unknown."""
        if self.input_usd_per_mtok is None:
            return None
        more = {name: getattr(self, name) for name in _PRICES}
        return PriceCard(input_usd_per_mtok=self.input_usd_per_mtok, **more)


def check_models(config: Config) -> None:
    """Raise `ConfigError` where sections of models contradict each other, or nothing is served at all."""
    for name in config.models:
        if name in config.candidates:
            raise ConfigError(
                sentence(
                    f"the sections 'models.{name}' and 'candidates.{name}' are of the same model",
                    allowed="one of them",
                    do=f"keep 'models.{name}', which has all keys of the other",
                )
            )
        if name == config.routing.alias:
            raise ConfigError(
                sentence(
                    f"the section 'models.{name}' takes a name that is taken",
                    allowed="a name other than routing.alias",
                    got=name,
                    do=f"give it another name, and the upstream's as models.{name}.model",
                )
            )


def check_fallbacks(config: Config, known: list[str]) -> None:
    """Raise `ConfigError` for one who stands in and is nobody, or the very one that did not answer."""
    for section in ("candidates", "models"):
        for name, own in getattr(config, section).items():
            allowed = [other for other in known if other != name]
            for wanted in own.fallbacks:
                if wanted not in allowed:
                    raise ConfigError(
                        sentence(
                            f"the setting '{section}.{name}.fallbacks' names nobody who can stand in",
                            allowed="other names of 'models', or candidates of the deployment",
                            got=wanted,
                            do=did_you_mean(wanted, allowed),
                        )
                    )


def check_without_deployment(config: Config) -> None:
    """Raise `ConfigError` where settings ask for a router, and there is no deployment; or for nobody."""
    rules = [(f"rules[{place}]", rule) for place, rule in enumerate(config.rules)]
    asking = {
        "goal": config.goal is not None,
        "rollout": config.rollout is not None,
        **{f"candidates.{name}": True for name in config.candidates},
        **{f"sequencers.{name}": True for name in config.sequencers},
        "routing.sequencer": config.routing.sequencer is not None,
        "routing.explore_share": config.routing.explore_share > 0,
        **{f"keys.{name}.goal": key.goal is not None for name, key in config.keys.items()},
        **{f"{place}.goal": rule.goal is not None for place, rule in rules},
        **{f"{place}.policy": rule.policy is not None for place, rule in rules},
        **{f"{place} (candidates, effort or adapter)": rule.narrows for place, rule in rules},
    }
    first = next((name for name, is_asking in asking.items() if is_asking), None)
    if first is not None:
        raise ConfigError(
            sentence(
                f"the setting {first!r} is for a router, and there is none",
                allowed="a file with a 'deployment', or one without this setting",
                do=f"take it out; or {HOW}",
            )
        )
    if not config.models:
        raise ConfigError(
            sentence(
                "the settings name neither a deployment nor a model, so nothing could be asked for",
                allowed="a 'deployment', sections 'models.NAME', or both",
                do=f"add a section 'models.NAME' for each model; or {HOW}",
            )
        )


HOW = (
    "make a deployment (`turnout record` asks your models what users ask, `turnout fit` learns from it), "
    "set its folder as 'deployment' in the settings file, and reload"
)
"""How a gateway gets a router."""
