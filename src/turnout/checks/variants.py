"""This module varies every constructor parameter of a class, one at a time, from its signature.

A flag is flipped, a number (or a tuple of them) is scaled, a `Literal` takes every option, `T | None`
takes both, and an embedder is replaced by another one. What cannot be guessed (a plain string) is given as
`settings`, parameter -> values, or declared on the class as `check_settings: ClassVar[Settings]`; the first
value also stands in where the parameter has no default.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import turnout.core
from turnout.checks.fixtures import LetterCounts, small_queries
from turnout.core.budget import Budget, Goal
from turnout.core.contracts import Configured, Embedder
from turnout.core.errors import InputError, UnknownNameError, sentence

Settings = Mapping[str, Sequence[object]]
"""Values to try, by parameter."""

_MAX_NUMBERS = 2


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A class under one setting that differs from its defaults."""

    name: str
    """`default`, or `parameter=value`."""
    thing: Configured
    """An object of the class that has learned nothing."""


def yield_variants(cls: type[Configured], *, settings: Settings | None = None) -> Iterator[Variant]:
    """Yield the default object, then one object per value of each parameter.

    Raises
    ------
    InputError
        If no second value of a parameter can be guessed and `settings` has none.
    """
    given: Settings = {**getattr(cls, "check_settings", {}), **(settings or {})}
    parameters = inspect.signature(cls).parameters
    if stray := sorted(set(given) - set(parameters)):
        raise InputError(
            sentence(f"settings of {cls.__name__}", allowed=f"parameters {list(parameters)}", got=stray)
        )
    base = _base_arguments(cls, given)
    yield Variant(name="default", thing=cls(**base))
    for name, parameter in parameters.items():
        default = base.get(name, parameter.default)
        if name in given:
            things = [(value, cls(**{**base, name: value})) for value in _others(given[name], default)]
        else:
            things = _guessed(cls, base, name, default)
        if not things:
            raise _not_guessed(cls, name)
        for value, thing in things:
            yield Variant(name=f"{name}={_show(value)}", thing=thing)


def _base_arguments(cls: type[Configured], given: Settings) -> dict[str, Any]:
    base = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            options = given[name] if name in given else _guess(hint_of(cls, name), None)
            if not options:
                raise _not_guessed(cls, name)
            base[name] = options[0]
    return base


def _guessed(
    cls: type[Configured], base: Mapping[str, Any], name: str, default: object
) -> list[tuple[object, Configured]]:
    things: list[tuple[object, Configured]] = []
    num_numbers = 0
    for value in _others(_guess(hint_of(cls, name), default), default):
        is_number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
        if is_number and num_numbers == _MAX_NUMBERS:
            continue
        try:
            things.append((value, cls(**{**base, name: value})))
        except (InputError, UnknownNameError):
            # A guess may lie outside the range; the next one is tried.
            continue
        num_numbers += is_number
    return things


def _not_guessed(cls: type, name: str) -> InputError:
    return InputError(
        sentence(
            f"no value of {cls.__name__}'s parameter {name!r} can be guessed",
            do=f"pass settings={{{name!r}: (value, ...)}}, or declare check_settings on the class",
        )
    )


def hint_of(cls: type, name: str) -> Any:
    """Return the type of a constructor parameter, or None where its annotation cannot be resolved."""
    annotation = inspect.signature(cls).parameters[name].annotation
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    # Names imported for the type checker alone are missing at run time; those of core stand in.
    known = {**vars(typing), **vars(turnout.core), **vars(sys.modules[cls.__module__])}
    try:
        return typing.get_type_hints(holder, globalns=known)[name]
    except NameError:
        return None


def members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _guess(hint: Any, default: object) -> list[object]:
    options: list[object] = []
    for kind in members(hint):
        if kind is type(None):
            options.append(None)
        elif typing.get_origin(kind) is Literal:
            options.extend(typing.get_args(kind))
        elif kind is bool:
            options.extend((True, False))
        elif kind in (int, float):
            options.extend(_numbers(kind, default))
        elif typing.get_origin(kind) is tuple and isinstance(default, tuple):
            options.extend(_tuples(default))
        elif isinstance(kind, type):
            options.extend(_objects(kind))
    return options


def _numbers(kind: type, default: object) -> list[object]:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    base: Any = default if is_number else kind(1)
    if kind is int:
        return [base * 2, base // 2, base + 1, base - 1, 1, 2]
    return [base * 2.0, base / 2.0, base + 0.1, 0.5, 0.9, 0.1]


def _tuples(default: tuple[Any, ...]) -> list[object]:
    if not all(isinstance(value, int | float) for value in default):
        return []
    doubled, halved = tuple(value * 2 for value in default), tuple(value // 2 for value in default)
    return [(*default[:-1], default[-1] + 1), doubled, halved] if default else []


def _objects(kind: type) -> list[object]:
    if issubclass(kind, Embedder):
        return [LetterCounts(), LetterCounts(scale=2.0).fit(small_queries())]
    examples: tuple[object, ...] = (Goal(quality_floor=0.9), Budget(price=10.0), LetterCounts())
    return [example for example in examples if isinstance(example, kind)] if kind is not object else []


def _others(options: Sequence[object], default: object) -> list[object]:
    kept: list[object] = []
    for value in options:
        if not any(type(value) is type(seen) and value == seen for seen in (default, *kept)):
            kept.append(value)
    return kept


def _show(value: object) -> str:
    text = repr(value)
    is_fitted = isinstance(value, Configured) and value.is_fitted
    return (text if len(text) <= 40 else text[:37] + "...") + (" fitted" if is_fitted else "")
