"""This module holds what a running gateway is made of, as one value that never changes.

A request takes the parts as they are when it comes in, and keeps them to its end. A new configuration is
therefore one assignment: requests before it see the old parts, those after it the new ones, none a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.errors import ConfigError, sentence
from turnout.core.rng import make_rng
from turnout.gateway.admission import Admission
from turnout.gateway.breakers import Breakers
from turnout.gateway.config import Config
from turnout.gateway.decide import Decider, RouterDecider
from turnout.gateway.errands import Errands
from turnout.gateway.gate import Gate
from turnout.gateway.ledger import Ledger
from turnout.gateway.metrics import Metrics
from turnout.gateway.pins import Pins
from turnout.gateway.prices import Prices, prices_of
from turnout.gateway.providers.base import Place, Provider, check_places, places_of, unrouted_of
from turnout.gateway.retry import Allowance
from turnout.gateway.rollout import RolloutDecider, make_rollout
from turnout.gateway.rules import Rules
from turnout.gateway.select import Selector
from turnout.gateway.sequence import SequenceHandler
from turnout.gateway.sequence_build import build_sequences
from turnout.gateway.settings_telemetry import TelemetrySettings
from turnout.gateway.warmth import Warmth
from turnout.policies.deployment import Deployment

if TYPE_CHECKING:
    from turnout.gateway.telemetry import Telemetry


@final
@dataclass(kw_only=True, slots=True)
class Running:
    """How many requests hold these parts; they are closed when it is 0 and others are in force."""

    count: int = 0


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a gateway under one configuration."""

    config: Config
    selector: Selector
    decider: Decider
    """The step that turns a request into a ranked list."""
    providers: Mapping[str, Provider]
    """By the name that the configuration gives them."""
    places: Mapping[str, Place]
    """Who serves a candidate and under which name, by candidate name."""
    rules: Rules | None
    """What holds for which requests; None where the configuration has no rules."""
    sequences: SequenceHandler
    ledger: Ledger
    clock: Clock
    gate: Gate
    breakers: Breakers
    retries: Allowance
    hedges: Allowance
    warmth: Warmth | None = None
    """Who has read which conversation; None where conversations do not count."""
    pins: Pins = field(default_factory=Pins)
    """Which provider keeps what later requests build on."""
    admission: Admission | None = None
    """Who may come in; None where nobody needs a key."""
    prices: Prices | None = None
    """Price cards of the settings or their file; None where the deployment's own hold."""
    metrics: Metrics = field(default_factory=Metrics)
    telemetry: Telemetry | None = None
    """Who is told of requests; None where nobody is."""
    running: Running = field(default_factory=Running)
    errands: Errands = field(default_factory=Errands)
    """What goes on when its request has been answered."""
    created_s: int
    """When these parts were made, in seconds since the epoch."""

    @property
    def rollout(self) -> RolloutDecider | None:
        """What tries a second deployment; None where none is."""
        return self.decider if isinstance(self.decider, RolloutDecider) else None

    def check_models(self) -> None:
        """Raise `ConfigError` for a model that a started provider does not know, a sequencer's own too."""
        for places in (self.places, *(one.places for one in self.sequences.sequences.values())):
            check_places(places)

    @property
    def names(self) -> list[str]:
        """Every model name that a client may ask for."""
        selector = self.selector
        alias = [] if selector.deployment is None else [self.config.routing.alias]
        found = [*alias, *self.sequences.sequences, *selector.by_name, *selector.unrouted]
        return list(dict.fromkeys(found))


def _check_alias(config: Config, pool: Sequence[Candidate]) -> None:
    """Raise `ConfigError` where a candidate could not be asked for, since the router has its name."""
    alias = config.routing.alias
    if alias in {candidate.name for candidate in pool}:
        raise ConfigError(
            sentence(
                "the setting 'routing.alias' is the name of a candidate, which nobody could ask for any more",
                allowed="a name that no candidate has",
                got=alias,
                do="choose another alias",
            )
        )


def make_parts(
    config: Config,
    *,
    deployment: Deployment | None,
    second: Deployment | None = None,
    providers: Mapping[str, Provider],
    ledger: Ledger,
    clock: Clock,
) -> Parts:
    """Put the parts together; opens nothing. Raises `InputError` where the goal cannot be served."""
    pool = () if deployment is None else deployment.candidates
    _check_alias(config, pool)
    unrouted = unrouted_of(config, [candidate.name for candidate in pool])
    prices = prices_of(config, pool, unrouted.values())
    priced = tuple(one if prices is None else prices.priced(one) for one in pool)
    selector = Selector(
        deployment=deployment,
        alias=config.routing.alias,
        goal=None if config.goal is None else config.goal.goal(),
        rng=make_rng(config.routing.seed, "gateway"),
        pace=config.routing.pace,
        unrouted=unrouted,
        fallbacks=config.fallbacks,
        explore_share=config.routing.explore_share,
    )
    live = RouterDecider(selector=selector)
    places = places_of(config, [*pool, *unrouted.values()], providers)
    return Parts(
        config=config,
        selector=selector,
        decider=live if second is None else make_rollout(config, live=live, deployment=second, ledger=ledger),
        providers=providers,
        places=places,
        rules=Rules(config=config, deployment=deployment, clock=clock) if config.rules else None,
        sequences=SequenceHandler(
            sequences=build_sequences(config, priced, providers, places),
            seed=config.routing.seed,
        ),
        ledger=ledger,
        clock=clock,
        gate=Gate(settings=config.server),
        breakers=Breakers(settings=config.breakers, clock=clock, places=places.values()),
        retries=Allowance(share=config.routing.retry_share),
        hedges=Allowance(share=config.routing.hedge_share),
        warmth=Warmth(idle_s=config.routing.sticky_idle_s, clock=clock) if config.routing.sticky else None,
        created_s=int(clock.now_s()),
        telemetry=_telemetry(config.telemetry),
        prices=prices,
    )


def _telemetry(settings: TelemetrySettings) -> Telemetry | None:
    """Return who is told of requests; the library is imported only where it is asked for."""
    if not settings.otel:
        return None
    from turnout.gateway.telemetry import Telemetry

    return Telemetry(settings=settings)
