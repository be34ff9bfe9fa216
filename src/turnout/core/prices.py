"""This module holds the one update of every dual price: raise what is overused, lower what is not.

The Lagrange multiplier of a constraint `usage <= target` moves by projected subgradient ascent,
`price <- max(low, price + step * (usage - target))`. A request budget uses it with spend against the
planned spend; the load-free balance of experts (S174, S190) uses it with load against the mean load,
where prices may be negative and only their differences matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from turnout.core.errors import InputError, sentence

Array = npt.NDArray[np.float64]


def dual_step(
    price: npt.ArrayLike, *, usage: npt.ArrayLike, target: npt.ArrayLike, step: float, low: float = 0.0
) -> Array:
    """Return the price after one update; `low` is 0 for a cap and minus infinity for a balance.

    All arrays broadcast; units: price in quality per unit of usage, step in price per unit of usage.
    """
    if not step > 0:
        raise InputError(sentence("dual_step: step", allowed="a number above 0", got=step))
    moved = np.asarray(price, np.float64) + step * (
        np.asarray(usage, np.float64) - np.asarray(target, np.float64)
    )
    return np.maximum(moved, low)


def dual_sign_step(
    price: npt.ArrayLike, *, usage: npt.ArrayLike, target: npt.ArrayLike, step: float, low: float = 0.0
) -> Array:
    """Return the price after a step of fixed length in the direction of the violation.

    This is the published form of loss-free expert balance (S174), `b += u * sign(mean load - load)`,
    written for the price `-b`.
    """
    direction = np.sign(np.asarray(usage, np.float64) - np.asarray(target, np.float64))
    return dual_step(price, usage=direction, target=0.0, step=step, low=low)
