"""This module builds what the settings of a sequencer name: its class, its pool, the policy's own model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from turnout.core import artifact
from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import ConfigError, InputError, UnknownNameError, did_you_mean, sentence
from turnout.gateway.config import Config, SequencerSettings
from turnout.gateway.providers.base import Provider
from turnout.gateway.sequence_client import Place
from turnout.sequential import registry
from turnout.sequential.contracts import Sequencer
from turnout.sequential.router_r1.describe import describe_pool
from turnout.sequential.trace import Bounds

PREFIX = "turnout/"
"""What the model name of a sequencer begins with."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """A sequencer, ready to serve."""

    name: str
    """The model name that clients ask for."""
    settings: SequencerSettings
    sequencer: Sequencer
    pool: tuple[Candidate, ...]
    thinker: Candidate | None
    places: Mapping[str, Place]
    """Who serves the pool and the policy's own model, by candidate name."""

    def bounds(self, usd: float | None) -> Bounds:
        """Return the bounds of one request; `usd` is what its client allows."""
        own = self.settings.max_usd
        allowed = [value for value in (own, usd) if value is not None]
        return Bounds(
            steps=self.settings.max_steps,
            usd=min(allowed) if allowed else None,
            calls=self.settings.max_calls,
            deadline_s=self.settings.deadline_s,
        )


def build_sequences(
    config: Config,
    candidates: tuple[Candidate, ...],
    providers: Mapping[str, Provider],
    places: Mapping[str, Place],
) -> dict[str, Sequence]:
    """Return the sequencers by the model name that asks them; raises `ConfigError` that names the key."""
    found = {}
    for key, settings in config.sequencers.items():
        name = PREFIX + key
        if name == config.routing.alias or name in places:
            raise _wrong(key, "", allowed="a name that nothing else has", got=name, do="rename it")
        found[name] = _Builder(key, settings, candidates, providers, places).build(name)
    wanted = config.routing.sequencer
    if wanted is not None:
        if PREFIX + wanted not in found:
            raise ConfigError(
                sentence(
                    "the setting 'routing.sequencer' names no sequencer",
                    allowed="a name of a section 'sequencers.NAME'",
                    got=wanted,
                    do=did_you_mean(wanted, config.sequencers),
                )
            )
        found[config.routing.alias] = found[PREFIX + wanted]
    return found


class _Builder:
    """Builds one."""

    def __init__(
        self,
        key: str,
        settings: SequencerSettings,
        candidates: tuple[Candidate, ...],
        providers: Mapping[str, Provider],
        places: Mapping[str, Place],
    ) -> None:
        self.key = key
        self.settings = settings
        self.by_name = {candidate.name: candidate for candidate in candidates}
        self.providers = providers
        self.places = dict(places)

    def build(self, name: str) -> Sequence:
        thinker = self._thinker()
        pool = self._pool(thinker)
        self._check_prices(pool, thinker)
        return Sequence(
            name=name,
            settings=self.settings,
            sequencer=self._sequencer(pool),
            pool=pool,
            thinker=thinker,
            places=self.places,
        )

    def _thinker(self) -> Candidate | None:
        own = self.settings
        if own.policy_model is None:
            return None
        if own.policy_provider is None:
            return self._candidate("policy_model", own.policy_model)
        if own.policy_provider not in self.providers:
            raise _wrong(
                self.key,
                "policy_provider",
                allowed="a name of a section 'providers.NAME'",
                got=own.policy_provider,
                do=did_you_mean(own.policy_provider, self.providers),
            )
        card = None
        if own.policy_input_usd_per_mtok is not None and own.policy_output_usd_per_mtok is not None:
            card = PriceCard(
                input_usd_per_mtok=own.policy_input_usd_per_mtok,
                output_usd_per_mtok=own.policy_output_usd_per_mtok,
            )
        # No candidate's name: the policy's model may be the same as one of the pool, at another provider.
        thinker = Candidate(model=own.policy_model, price_card=card, adapter=f"policy of {self.key}")
        self.places[thinker.name] = (self.providers[own.policy_provider], own.policy_model)
        return thinker

    def _pool(self, thinker: Candidate | None) -> tuple[Candidate, ...]:
        if self.settings.candidates is not None:
            return tuple(self._candidate("candidates", name) for name in self.settings.candidates)
        return tuple(c for c in self.by_name.values() if thinker is None or c.name != thinker.name)

    def _candidate(self, setting: str, name: str) -> Candidate:
        if name not in self.by_name:
            raise _wrong(
                self.key,
                setting,
                allowed=f"a candidate of the deployment ({len(self.by_name)} of them)",
                got=name,
                do=did_you_mean(name, self.by_name),
            )
        return self.by_name[name]

    def _check_prices(self, pool: tuple[Candidate, ...], thinker: Candidate | None) -> None:
        """A spend bound without prices would refuse every call of every request; say so at the start."""
        asked = [*pool, *([] if thinker is None else [thinker])]
        unknown = [candidate.model for candidate in asked if candidate.price_card is None]
        if self.settings.max_usd is not None and unknown:
            raise _wrong(
                self.key,
                "max_usd",
                allowed="a bound where every model has a price card",
                got=f"none of {', '.join(unknown)}",
                do="leave these out, give them prices, or take the bound away",
            )

    def _sequencer(self, pool: tuple[Candidate, ...]) -> Sequencer:
        own = self.settings
        if (own.kind is None) == (own.artifact is None):
            raise _wrong(
                self.key, "kind", allowed="either 'kind' or 'artifact'", got=own.kind, do="give one of them"
            )
        if own.artifact is not None:
            made: object = artifact.load(own.artifact)
        else:
            made = self._of_kind(str(own.kind), pool)
        if not isinstance(made, Sequencer):
            raise _wrong(self.key, "kind", allowed="a sequencer", got=type(made).__name__, do="name another")
        return made

    def _of_kind(self, kind: str, pool: tuple[Candidate, ...]) -> object:
        try:
            cls = registry.get(kind)
        except UnknownNameError as error:
            raise _wrong(
                self.key, "kind", allowed=", ".join(registry), got=kind, do=did_you_mean(kind, registry)
            ) from error
        known = inspect.signature(cls).parameters
        options = {name: _tuples(value) for name, value in self.settings.options.items()}
        for name in options:
            if name not in known:
                raise _wrong(
                    self.key,
                    f"options.{name}",
                    allowed=f"an argument of {cls.__name__}",
                    got=name,
                    do=did_you_mean(name, known),
                )
        if "descriptions" in known and "descriptions" not in options:
            options["descriptions"] = describe_pool(pool)
        try:
            return cls(**options)
        except (InputError, TypeError) as error:
            raise ConfigError(f"the section 'sequencers.{self.key}.options' is wrong; {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _wrong(key: str, setting: str, *, allowed: str, got: object, do: str) -> ConfigError:
    what = f"the setting 'sequencers.{key}.{setting}'" if setting else f"the section 'sequencers.{key}'"
    return ConfigError(sentence(f"{what} is wrong", allowed=allowed, got=got, do=do))
