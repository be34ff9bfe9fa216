"""This module checks what holds of everything that has a configuration: store, clone, save, load."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sized
from typing import Any, Literal, get_args, get_origin

from turnout.checks.compare import frozen_copy, require_same_state
from turnout.checks.report import Check, CheckFailed, bind, require, skip
from turnout.checks.variants import hint_of, members
from turnout.core import artifact
from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured
from turnout.core.errors import NotFittedError, TurnoutError, UnknownNameError, sentence


def check_configured(thing: Configured) -> Iterator[Check]:
    """Yield the checks of the constructor and the configuration; they need no data."""
    return bind(thing, CONFIGURED_CHECKS)


def constructor_takes_keywords_only(thing: Configured) -> None:
    """Every parameter has a name that a caller must write."""
    kinds = {name: p.kind for name, p in inspect.signature(type(thing)).parameters.items()}
    wrong = [name for name, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY]
    require(
        not wrong, thing, "a parameter is not keyword-only", allowed="def __init__(self, *, ...)", got=wrong
    )


def constructor_stores_its_arguments(thing: Configured) -> None:
    """A second object made from the configuration has the same configuration."""
    config = thing.config()
    again = type(thing)(**config).config()
    for name, value in config.items():
        require(
            again[name] is value or again[name] == value,
            thing,
            f"the argument {name!r} is not stored under its name",
            allowed=value,
            got=again[name],
        )


def constructor_does_no_work(thing: Configured) -> None:
    """A new object has no public attribute but its arguments and empty places for what it will learn.

    The name of a place ends in an underscore, or it holds None or an empty collection.
    """
    new = thing.clone()
    public = [name for name in vars(new) if not name.startswith("_") and not name.endswith("_")]
    for name in set(public) - set(inspect.signature(type(thing)).parameters):
        value = getattr(new, name)
        is_empty = value is None or (isinstance(value, Sized) and not len(value))
        require(is_empty, thing, f"the constructor set {name!r}", allowed="its arguments", got=value)


def refuses_bad_values(thing: Configured) -> None:
    """A text for a number, a number that is not one, an unknown option: each is a `TurnoutError`."""
    config = thing.config()
    for name in config:
        for value in bad_values(hint_of(type(thing), name)):
            try:
                type(thing)(**{**config, name: value})
            except TurnoutError as error:
                shown = str(error)
                require(name in shown, thing, f"the refusal of {name}={value!r} does not name it", got=shown)
                continue
            raise CheckFailed(
                sentence(
                    f"{type(thing).__name__}: the constructor accepts {name}={value!r}",
                    allowed="an InputError that names the parameter",
                )
            )


def config_is_json(thing: Configured) -> None:
    """Every setting survives the manifest: numbers, strings, tuples and turnout's own objects."""
    own = (Configured, Goal, Budget, Candidate)
    for name, value in thing.config().items():
        try:
            json.dumps(value, default=lambda part: repr(part) if isinstance(part, own) else json.dumps(part))
        except TypeError as error:
            raise CheckFailed(
                sentence(
                    f"{type(thing).__name__}: the setting {name!r} cannot be stored",
                    allowed="numbers, strings, None, tuples and turnout's own objects",
                    got=type(value).__name__,
                )
            ) from error


def clone_has_the_same_configuration(thing: Configured) -> None:
    """A clone is another object of the same class with the same settings."""
    copy = thing.clone()
    require(
        copy is not thing and type(copy) is type(thing), thing, "clone gave no second object of its class"
    )
    require(repr(copy) == repr(thing), thing, "a clone differs", allowed=repr(thing), got=repr(copy))


def bad_values(hint: Any) -> list[object]:
    """Return values that no parameter of this type may accept; none where the type says too little."""
    kinds = members(hint)
    if any(get_origin(kind) is Literal for kind in kinds):
        return ["no-such-option"] if all(isinstance(o, str) for k in kinds for o in get_args(k)) else []
    if bool in kinds:
        return []
    if int in kinds or float in kinds:
        return ["seven", math.nan, object()] if str not in kinds else [math.nan]
    if any(isinstance(kind, type) and issubclass(kind, Configured) for kind in kinds):
        return [7, "knn"]
    return []


def require_state_round_trip(thing: Configured, require_same: Callable[[Configured], None]) -> None:
    """Restore the state of a fitted `thing` on a new object and hand that to `require_same`."""
    state = frozen_copy(thing.state())
    again = type(thing)(**thing.config())
    again.restore(state)
    require_same_state(thing, "the state after a round trip", thing.state(), again.state())
    require_same(again)


def require_artifact_round_trip(thing: Configured, require_same: Callable[[Configured], None]) -> None:
    """Save a fitted `thing`, load it, and hand the loaded object to `require_same`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact.save(thing, folder)
        except UnknownNameError as error:
            skip(thing, f"it cannot be saved yet: {error}")
        require_same(artifact.load(folder))


def require_not_fitted_error(thing: Configured, move: str, call: Callable[[], object]) -> None:
    """Raise `CheckFailed` unless `call` raises `NotFittedError`."""
    try:
        call()
    except NotFittedError:
        return
    except TurnoutError as error:
        got: object = error
    else:
        got = "an answer"
    raise CheckFailed(
        sentence(f"{type(thing).__name__}.{move} before fit", allowed="NotFittedError", got=got)
    )


CONFIGURED_CHECKS: tuple[Callable[[Any], None], ...] = (
    constructor_takes_keywords_only,
    constructor_stores_its_arguments,
    constructor_does_no_work,
    refuses_bad_values,
    config_is_json,
    clone_has_the_same_configuration,
)
"""The promises of every configured class."""
