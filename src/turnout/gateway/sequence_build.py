"""This module builds what the settings of a sequencer need: its pool, the policy's own model, its prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.gateway.config import Config, SequencerSettings
from turnout.gateway.providers.base import Place, Provider
from turnout.gateway.sequence_kind import check_names, check_thinker, make_sequencer, wrong
from turnout.sequential.contracts import Sequencer
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
            raise wrong(key, "", allowed="a name that nothing else has", got=name, do="rename it")
        found[name] = _Builder(key, settings, candidates, providers, places).build(name)
    wanted = config.routing.sequencer
    if wanted is not None:
        if PREFIX + wanted not in found:
            raise ConfigError(
                sentence(
                    "the setting 'routing.sequencer' names no sequencer",
                    allowed="a name of a section 'sequencers.NAME'",
                    got=wanted,
                    do=f"{did_you_mean(wanted, config.sequencers)}; otherwise add that section",
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
        sequencer = make_sequencer(self.key, self.settings, pool)
        check_thinker(self.key, sequencer, thinker)
        check_names(self.key, self.settings, sequencer, pool)
        return Sequence(
            name=name,
            settings=self.settings,
            sequencer=sequencer,
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
            raise wrong(
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
            raise wrong(
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
            raise wrong(
                self.key,
                "max_usd",
                allowed="a bound where every model has a price card",
                got=f"none of {', '.join(unknown)}",
                do="leave these out, give them prices, or take the bound away",
            )
