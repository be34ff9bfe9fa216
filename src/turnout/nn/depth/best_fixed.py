"""This module chooses the one set of blocks that may be skipped for everybody, on training questions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.contract import check_layers

Quality = Callable[[Sequence[tuple[int, ...]]], Sequence[float]]
"""Called with patterns counts_L; returns the mean quality of each on the training questions."""


def best_fixed_skip(
    quality: Quality, *, layers: int, executed: int, most_patterns: int = 1000
) -> tuple[int, ...]:
    """Return the counts_L with `executed` blocks that are best on average; ties by the first.

    Every pattern is tried where there are at most `most_patterns`; else blocks are taken out one by one, each
    time the one that is missed least. Raises `InputError` for a budget outside [0, layers].
    """
    check_layers("best_fixed_skip", layers)
    if not 0 <= executed <= layers:
        raise InputError(sentence("best_fixed_skip: executed", allowed=f"0 to {layers} layers", got=executed))
    if math.comb(layers, executed) <= most_patterns:
        kept = itertools.combinations(range(layers), executed)
        return _best(quality, [_pattern(k, layers) for k in kept])
    found = (1,) * layers
    while sum(found) > executed:
        fewer = [found[:layer] + (0,) + found[layer + 1 :] for layer, count in enumerate(found) if count]
        found = _best(quality, fewer)
    return found


def _best(quality: Quality, patterns: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    values = list(quality(patterns))
    return patterns[max(range(len(patterns)), key=lambda i: (values[i], -i))]


def _pattern(kept: Sequence[int], layers: int) -> tuple[int, ...]:
    return tuple(int(layer in kept) for layer in range(layers))
