"""This module makes the sequencer that a section names, and refuses one that could not serve a request."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, InputError, UnknownNameError, did_you_mean, sentence
from turnout.gateway.artifacts import load_named
from turnout.gateway.config import SequencerSettings
from turnout.sequential import registry
from turnout.sequential.contracts import Sequencer
from turnout.sequential.router_r1.describe import describe_pool

_EXAMPLES = {"order": 'add for example options = { order = ["NAME", "NAME"] }'}


def make_sequencer(key: str, settings: SequencerSettings, pool: tuple[Candidate, ...]) -> Sequencer:
    """Return the sequencer of the section `sequencers.<key>`, ready to choose.

    Raises `ConfigError` that names the setting at fault, `ArtifactError` for a damaged folder.
    """
    if (settings.kind is None) == (settings.artifact is None):
        got = None if settings.kind is None else f"{settings.kind!r} and {settings.artifact!r}"
        raise wrong(key, "kind", allowed="either 'kind' or 'artifact'", got=got, do="give one of them")
    setting = "kind" if settings.artifact is None else "artifact"
    if settings.artifact is None:
        made: object = _of_kind(key, str(settings.kind), settings.options, pool)
    else:
        made = load_named(settings.artifact, f"sequencers.{key}.artifact")
    if not isinstance(made, Sequencer):
        got = type(made).__name__
        raise wrong(key, setting, allowed=_kinds(), got=got, do="name a sequencer")
    if not made.is_fitted:
        got = f"{type(made).__name__}, which has learned nothing"
        do = "fit and save it, and name its folder in 'artifact' instead"
        raise wrong(key, setting, allowed="a sequencer that is ready to choose", got=got, do=do)
    return made


def check_thinker(key: str, sequencer: Sequencer, thinker: Candidate | None) -> None:
    """Raise `ConfigError` where a sequencer that thinks has no model to think with."""
    if thinker is None and sequencer.thinks:
        raise wrong(
            key,
            "policy_model",
            allowed=f"the model that thinks for {type(sequencer).__name__}",
            got=None,
            do="name a candidate, or any model together with policy_provider",
        )


def check_names(
    key: str, settings: SequencerSettings, sequencer: Sequencer, pool: tuple[Candidate, ...]
) -> None:
    """Raise `ConfigError` where a sequencer's `order` names a candidate that it may not call."""
    names = [candidate.name for candidate in pool]
    setting = "options.order" if settings.artifact is None else "artifact"
    for name in getattr(sequencer, "order", None) or ():
        if name not in names:
            allowed = f"a candidate of its pool ({len(names)} of them)"
            raise wrong(key, setting, allowed=allowed, got=name, do=did_you_mean(str(name), names))


def wrong(key: str, setting: str, *, allowed: str, got: object, do: str) -> ConfigError:
    """Return the error of one setting of the section `sequencers.<key>`; no setting: of the section."""
    what = f"the setting 'sequencers.{key}.{setting}'" if setting else f"the section 'sequencers.{key}'"
    return ConfigError(sentence(f"{what} is wrong", allowed=allowed, got=got, do=do))


def _of_kind(key: str, kind: str, given: Mapping[str, Any], pool: tuple[Candidate, ...]) -> object:
    try:
        cls = registry.get(kind)
    except UnknownNameError as error:
        raise wrong(key, "kind", allowed=_kinds(), got=kind, do=did_you_mean(kind, registry)) from error
    options = {name: _tuples(value) for name, value in given.items()}
    known = inspect.signature(cls).parameters
    if "descriptions" in known and "descriptions" not in options:
        options["descriptions"] = describe_pool(pool)
    _check_options(key, cls, options)
    try:
        return cls(**options)
    except InputError as error:
        raise ConfigError(_of_setting(key, cls, str(error))) from error
    except (TypeError, ValueError) as error:
        what = f"arguments of {cls.__name__} of the documented kinds"
        do = "change them as docs/sequential.md says"
        raise wrong(key, "options", allowed=what, got=dict(given), do=do) from error


def _check_options(key: str, cls: type, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an option that the class does not know, or needs and was not given."""
    known = inspect.signature(cls).parameters
    for name in options:
        if name not in known:
            allowed = f"an argument of {cls.__name__}"
            raise wrong(key, f"options.{name}", allowed=allowed, got=name, do=did_you_mean(name, known))
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            do = _EXAMPLES.get(
                name, "save such a sequencer, and name its folder in 'artifact' instead of 'kind'"
            )
            what = f"the setting 'sequencers.{key}.options.{name}' is missing"
            allowed = f"a value for it: {cls.__name__} has no default"
            raise ConfigError(sentence(what, allowed=allowed, got=None, do=do))


def _of_setting(key: str, cls: type, said: str) -> str:
    """Return the sentence of a class in the words of the file."""
    own = f"{cls.__name__}."
    head, mark, rest = said.partition(";")
    if head.startswith(own):
        said = f"the setting 'sequencers.{key}.options.{head.removeprefix(own)}' is wrong{mark}{rest}"
    else:
        said = f"the section 'sequencers.{key}.options' is wrong; {said}"
    return f"{said}; change it as docs/sequential.md says"


def _kinds() -> str:
    """Return the names of the sequencers; the room's table holds scorers and tasks, too."""
    return ", ".join(name for name in registry if issubclass(registry.get(name), Sequencer))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
