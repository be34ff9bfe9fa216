"""This module holds one reported number: the figure on the data, and the interval of its resamples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from turnout.core.outcomes import Floats

MAX_UNDEFINED = 0.05
"""An interval is withheld when the number is undefined on more than this share of the resamples."""


@final
@dataclass(frozen=True, slots=True)
class Value:
    """A number with its interval; None where it is not defined or not known."""

    value: float | None
    """The number on the data themselves."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""

    def __str__(self) -> str:
        return self.format()

    def format(self, spec: str = ".4f", *, scale: float = 1.0) -> str:
        """Return `value [low, high]` with every number times `scale` in the format `spec`."""
        if self.value is None:
            return "n/a"
        head = _show(self.value, spec, scale)
        if self.low is None and self.high is None:
            return head
        return f"{head} [{_show(self.low, spec, scale)}, {_show(self.high, spec, scale)}]"

    def scaled(self, factor: float) -> Value:
        """Return the number in another unit."""
        return Value(*(None if part is None else part * factor for part in (self.value, self.low, self.high)))

    def within(self, least: float, most: float) -> Value:
        """Return the number and its ends where the truth can be: no further out than `least` and `most`."""
        parts = (self.value, self.low, self.high)
        return Value(*(None if part is None else min(max(part, least), most) for part in parts))

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def interval(value: float, draws_B: Floats, confidence: float) -> Value:
    """Return `value` with the percentile interval of its resamples, shape (B,).

    Infinite draws are kept in their order (a saving that is never reached is minus infinity), and an end
    that falls on one of them is None. Undefined (NaN) draws are left out up to `MAX_UNDEFINED`.
    """
    if math.isnan(value):
        return Value(None)
    point = value if math.isfinite(value) else None
    defined = np.sort(draws_B[~np.isnan(draws_B)])
    if not defined.size or defined.size < (1 - MAX_UNDEFINED) * draws_B.size:
        return Value(point)
    tail = (1.0 - confidence) / 2.0
    last = defined.size - 1
    low, high = defined[math.floor(tail * last)], defined[math.ceil((1.0 - tail) * last)]
    return Value(point, *(float(end) if math.isfinite(end) else None for end in (low, high)))


def _show(number: float | None, spec: str, scale: float) -> str:
    return "n/a" if number is None else format(number * scale, spec)
