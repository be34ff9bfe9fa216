"""This module chooses the one set of blocks that may be skipped for everybody, on training questions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from turnout.core.errors import InputError, sentence
from turnout.core.rng import make_rng
from turnout.core.validation import check_count
from turnout.nn.depth.contract import check_layers

Quality = Callable[[Sequence[tuple[int, ...]]], Sequence[float]]
"""Called with patterns counts_L; returns the mean quality of each on the training questions."""


def best_fixed_skip(
    quality: Quality,
    *,
    layers: int,
    executed: int,
    most_patterns: int = 1000,
    restarts: int = 8,
    seed: int = 0,
) -> tuple[int, ...]:
    """Return the counts_L with `executed` blocks that are best on average; ties by the first.

    Every pattern is tried where there are at most `most_patterns`. Else blocks are taken out one by one, each
    time the one that is missed least; from there, and from `restarts` patterns drawn by `seed`, one block
    is exchanged for another as long as that is better, and the best end of all is taken. A pattern is
    measured once; each exchange looks at `executed` times `layers - executed` of them.

    Raises `InputError` for a budget outside [0, layers].
    """
    check_layers("best_fixed_skip", layers)
    check_count("best_fixed_skip: restarts", restarts, low=0)
    if not 0 <= executed <= layers:
        raise InputError(sentence("best_fixed_skip: executed", allowed=f"0 to {layers} layers", got=executed))
    if math.comb(layers, executed) <= most_patterns:
        kept = itertools.combinations(range(layers), executed)
        return _best(quality, [_pattern(k, layers) for k in kept])
    quality = _remembered(quality)
    rng = make_rng(seed, "best_fixed_skip")
    drawn = [_pattern(rng.permutation(layers)[:executed].tolist(), layers) for _ in range(restarts)]
    starts = [_taken_out(quality, layers, executed), *drawn]
    return _best(quality, [_exchanged(quality, start) for start in starts])


def _taken_out(quality: Quality, layers: int, executed: int) -> tuple[int, ...]:
    """Return what is left when the block that is missed least goes, one after another."""
    found = (1,) * layers
    while sum(found) > executed:
        fewer = [found[:layer] + (0,) + found[layer + 1 :] for layer, count in enumerate(found) if count]
        found = _best(quality, fewer)
    return found


def _exchanged(quality: Quality, start: tuple[int, ...]) -> tuple[int, ...]:
    """Return the pattern from which no exchange of one block for another leads to a better one."""
    found, layers = start, range(len(start))
    while True:
        near = [
            tuple(int(count != (layer in (out, into))) for layer, count in enumerate(found))
            for out in layers
            for into in layers
            if found[out] and not found[into]
        ]
        best = _best(quality, [found, *near])
        if best == found:
            return found
        found = best


def _remembered(quality: Quality) -> Quality:
    known: dict[tuple[int, ...], float] = {}

    def values(patterns: Sequence[tuple[int, ...]]) -> list[float]:
        new = [pattern for pattern in dict.fromkeys(patterns) if pattern not in known]
        if new:
            known.update(zip(new, quality(new), strict=True))
        return [known[pattern] for pattern in patterns]

    return values


def _best(quality: Quality, patterns: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    values = list(quality(patterns))
    return patterns[max(range(len(patterns)), key=lambda i: (values[i], -i))]


def _pattern(kept: Sequence[int], layers: int) -> tuple[int, ...]:
    return tuple(int(layer in kept) for layer in range(layers))
