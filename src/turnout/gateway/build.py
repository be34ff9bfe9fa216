"""This module makes what a configuration names: the deployment, the providers, the keys; it opens nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from turnout.core.clock import Clock
from turnout.core.errors import ConfigError, InputError, did_you_mean, sentence
from turnout.gateway.artifacts import load_named
from turnout.gateway.config import Config
from turnout.gateway.key import Key
from turnout.gateway.keyring import config_keys
from turnout.gateway.ledger import Ledger
from turnout.gateway.parts import Parts, make_parts
from turnout.gateway.providers import build
from turnout.gateway.providers.base import Provider
from turnout.gateway.sequence_build import PREFIX
from turnout.gateway.settings_models import check_fallbacks, check_without_deployment
from turnout.gateway.settings_providers import LocalSettings
from turnout.gateway.signals.board import Board
from turnout.policies.deployment import Deployment


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What a configuration names, loaded and checked."""

    config: Config
    deployment: Deployment | None
    """Who chooses; None where every client names its model."""
    second: Deployment | None
    """The deployment that is tried beside it."""
    providers: Mapping[str, Provider]
    keys: list[Key]

    def parts(self, *, ledger: Ledger, clock: Clock) -> Parts:
        """Put the parts together; raises `ConfigError` where the goal cannot be served."""
        try:
            return make_parts(
                self.config,
                deployment=self.deployment,
                second=self.second,
                providers=self.providers,
                ledger=ledger,
                clock=clock,
            )
        except ConfigError:
            raise
        except InputError as error:
            raise ConfigError(f"the section 'goal' cannot be served; {error}") from error


def build_all(config: Config, *, deployment: Deployment | None = None, before: Parts | None = None) -> Built:
    """Load what the settings name; raises `ArtifactError`, `TableError` or `ConfigError`.

    A given deployment stands for the artifact. Models in this process that stay as they were are taken over
    from the parts before: loading one takes its memory twice.
    """
    config.check()
    loaded = deployment
    if loaded is None and config.deployment is not None:
        loaded = load_deployment(config.deployment)
    if loaded is None:
        check_without_deployment(config)
    second = (
        None if config.rollout is None else load_deployment(config.rollout.deployment, "rollout.deployment")
    )
    _check_candidates(config, loaded, second)
    if config.signals and not config.rules:
        # Nobody reads them yet; whoever adds the first rule shall not meet yesterday's mistake.
        Board(settings=config.signals).close()
    kept = {} if before is None else _local_as_before(config, before)
    providers = {
        name: kept[name] if name in kept else build(name, settings)
        for name, settings in config.providers.items()
    }
    keys = config_keys(config.keys)
    for key in keys:
        # Its own word for the router may stand there before there is one.
        _check_models_of(key, [config.routing.alias, *served_names(config, loaded)])
        check_goal_of(key, loaded)
    return Built(config=config, deployment=loaded, second=second, providers=providers, keys=keys)


def load_deployment(folder: str, setting: str = "deployment") -> Deployment:
    """Load a deployment; raises `ArtifactError`, or `ConfigError` for an artifact of another kind."""
    loaded = load_named(folder, setting)
    if not isinstance(loaded, Deployment):
        raise ConfigError(
            sentence(
                f"the artifact {folder!r} is not a deployment",
                allowed="a folder that `turnout fit` wrote",
                got=type(loaded).__name__,
                do=f"name such a folder in the setting {setting!r}",
            )
        )
    return loaded


def check_goal_of(key: Key, deployment: Deployment | None) -> None:
    """Raise `ConfigError` where the deployment cannot serve the goal of a key."""
    try:
        _ = None if key.goal is None or deployment is None else deployment.plan(key.goal)
    except InputError as error:
        raise ConfigError(f"the section 'keys.{key.name}.goal' cannot be served; {error}") from error


def served_names(config: Config, deployment: Deployment | None) -> list[str]:
    """Return every name that clients may ask for, as `GET /v1/models` lists them."""
    if deployment is None:
        return list(config.models)
    sequencers = [PREFIX + name for name in config.sequencers]
    candidates = [candidate.name for candidate in deployment.candidates]
    return list(dict.fromkeys([config.routing.alias, *sequencers, *candidates, *config.models]))


def _check_models_of(key: Key, known: list[str]) -> None:
    """A name that nobody serves would be refused only where a client asks for the one that was meant."""
    for name in sorted(key.models or ()):
        if name not in known:
            raise ConfigError(
                sentence(
                    f"the setting 'keys.{key.name}.models' names no model",
                    allowed="the alias, a candidate of the deployment, or a name of 'models' or 'sequencers'",
                    got=name,
                    do=did_you_mean(name, known),
                )
            )


def _check_candidates(config: Config, deployment: Deployment | None, second: Deployment | None) -> None:
    known = [] if deployment is None else [candidate.name for candidate in deployment.candidates]
    # A promotion to a smaller pool leaves the others' sections where a rollback wants them.
    others = [] if second is None else [candidate.name for candidate in second.candidates]
    for name in config.candidates:
        if name not in known and name not in others:
            raise ConfigError(
                sentence(
                    f"the section 'candidates.{name}' names no candidate of the deployment",
                    allowed=f"one of its {len(known)} candidates",
                    got=name,
                    do=f"{did_you_mean(name, known)}; the section of any other model is 'models.{name}'",
                )
            )
    check_fallbacks(config, list(dict.fromkeys([*known, *others, *config.models])))


def _local_as_before(config: Config, before: Parts) -> dict[str, Provider]:
    return {
        name: before.providers[name]
        for name, settings in config.providers.items()
        if isinstance(settings, LocalSettings) and before.config.providers.get(name) == settings
    }
