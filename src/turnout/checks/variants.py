"""This module varies every constructor parameter of a class, one at a time, from its signature.

A flag is flipped, a number is scaled, a `Literal` takes every option, `T | None` takes both, and an
embedder is replaced by another one. What cannot be guessed (a plain string, a tuple) a class declares:
`check_settings: ClassVar[Mapping[str, Sequence[object]]]`, parameter -> values; the first value also
stands in where the parameter has no default.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from turnout import core
from turnout.checks.fixtures import LetterCounts, small_queries
from turnout.core.budget import Budget, Goal
from turnout.core.contracts import Configured, Embedder
from turnout.core.errors import InputError, UnknownNameError, sentence

_MAX_NUMBERS = 2


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A class under one setting that differs from its defaults."""

    name: str
    """`default`, or `parameter=value`."""
    thing: Configured
    """An object of the class that has learned nothing."""


def yield_variants(cls: type[Configured]) -> Iterator[Variant]:
    """Yield the default object, then one object per value of each parameter.

    Raises
    ------
    InputError
        If no second value of a parameter can be guessed and `check_settings` has none.
    """
    declared: Mapping[str, Sequence[object]] = getattr(cls, "check_settings", {})
    parameters = inspect.signature(cls).parameters
    stray = sorted(set(declared) - set(parameters))
    if stray:
        raise InputError(
            sentence(f"{cls.__name__}.check_settings", allowed=f"parameters {list(parameters)}", got=stray)
        )
    base = base_arguments(cls)
    yield Variant(name="default", thing=cls(**base))
    for name, parameter in parameters.items():
        options = declared[name] if name in declared else _guess(hint_of(cls, name), parameter.default)
        accepted = 0
        for value in _others(options, base.get(name, parameter.default)):
            thing = _build(cls, {**base, name: value}, is_sure=name in declared)
            if thing is not None:
                accepted += 1
                yield Variant(name=f"{name}={_show(value)}", thing=thing)
            if accepted == _MAX_NUMBERS and isinstance(value, float | int) and name not in declared:
                break
        if not accepted:
            raise InputError(
                sentence(
                    f"no second value of {cls.__name__}'s parameter {name!r} can be guessed",
                    do=f"declare check_settings = {{{name!r}: (value, ...)}} on the class",
                )
            )


def base_arguments(cls: type[Configured]) -> dict[str, Any]:
    """Return arguments for the parameters without a default: the first of `check_settings`."""
    declared: Mapping[str, Sequence[object]] = getattr(cls, "check_settings", {})
    base = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            continue
        options = declared[name] if name in declared else _guess(hint_of(cls, name), None)
        if not options:
            raise InputError(
                sentence(
                    f"{cls.__name__} needs the argument {name!r}",
                    do=f"declare check_settings = {{{name!r}: (value, ...)}} on the class",
                )
            )
        base[name] = options[0]
    return base


def hint_of(cls: type, name: str) -> Any:
    """Return the type of a constructor parameter, or None where its annotation cannot be resolved."""
    annotation = inspect.signature(cls).parameters[name].annotation
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    # Names imported for the type checker alone are missing at run time; those of core stand in.
    known = {**vars(typing), **vars(core), **vars(sys.modules[cls.__module__])}
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
        elif isinstance(kind, type):
            options.extend(_objects(kind))
    return options


def _numbers(kind: type, default: object) -> list[object]:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    base: Any = default if is_number else kind(1)
    if kind is int:
        return [base * 2, base // 2, base + 1, base - 1, 1, 2]
    return [base * 2.0, base / 2.0, base + 0.1, 0.5, 0.9, 0.1]


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


def _build(cls: type[Configured], arguments: dict[str, Any], *, is_sure: bool) -> Configured | None:
    try:
        return cls(**arguments)
    except (InputError, UnknownNameError):
        if is_sure:
            raise
        return None


def _show(value: object) -> str:
    text = repr(value)
    is_fitted = isinstance(value, Configured) and value.is_fitted
    return (text if len(text) <= 40 else text[:37] + "...") + (" fitted" if is_fitted else "")
