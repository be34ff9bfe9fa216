"""This module checks arguments and writes the one sentence that says what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from turnout.core.errors import InputError, ShapeError, UnknownNameError, did_you_mean, sentence


def check_number(
    where: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    allow_low: bool = True,
    allow_high: bool = True,
) -> float:
    """Return `value` as a float inside the interval, or raise `InputError`."""
    left, right = "[" if allow_low else "(", "]" if allow_high else ")"
    allowed = f"a number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InputError(sentence(where, allowed=allowed, got=value))
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    below = number < low or (number == low and not allow_low)
    above = number > high or (number == high and not allow_high)
    if math.isnan(number) or below or above:
        raise InputError(sentence(where, allowed=allowed, got=value))
    return number


def check_count(where: str, value: object, *, low: int = 1, high: int | None = None) -> int:
    """Return `value` as an int of at least `low` (and at most `high`), or raise `InputError`."""
    bound = f"a whole number of at least {low}" + ("" if high is None else f" and at most {high}")
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(sentence(where, allowed=bound, got=value))
    if value < low or (high is not None and value > high):
        raise InputError(sentence(where, allowed=bound, got=value))
    return int(value)


def check_choice(where: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`, or raise `UnknownNameError` with the nearest names."""
    known = list(options)
    if value not in known:
        raise UnknownNameError(sentence(where, got=value, do=did_you_mean(str(value), known)))
    return value


def check_shape(where: str, array: np.ndarray, axes: str, shape: tuple[int, ...]) -> None:
    """Raise `ShapeError` unless `array.shape == shape`; `axes` are the letters, one per dimension."""
    if array.shape != shape:
        letters = ", ".join(axes)
        raise ShapeError(
            sentence(where, allowed=f"({letters}) = {shape}", got=tuple(int(n) for n in array.shape))
        )


def check_kind(where: str, value: object, kind: type, *, do: str | None = None) -> None:
    """Raise `InputError` unless `value` is an object of this contract, such as `Embedder`; `do` says how."""
    if not isinstance(value, kind):
        raise InputError(sentence(where, allowed=f"an object of the kind {kind.__name__}", got=value, do=do))


def check_name(where: str, value: object) -> None:
    """Raise `InputError` unless `value` is a string with something in it."""
    if not isinstance(value, str) or not value.strip():
        do = "give it a name" if isinstance(value, str) or value is None else f"write it as {str(value)!r}"
        raise InputError(sentence(where, allowed="a string that is not blank", got=value, do=do))


def check_text(where: str, value: object) -> None:
    """Raise `InputError` unless `value` is a string; it may be empty."""
    if not isinstance(value, str):
        raise InputError(sentence(where, allowed="a string", got=value))
