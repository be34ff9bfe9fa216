"""This module lists and draws patterns: one choice for every layer, within a budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.duo.problem import Floats, Ints, Problem

LIMITS = {2: 10, 3: 6}
"""Layers up to which every pattern is tried: 1,024 with two choices, 729 with three."""


def all_patterns(problem: Problem, *, budget: float, max_layers: int | None = None) -> Ints:
    """Return every pattern that the budget affords, cheapest first, (N, L).

    Raises `InputError` beyond `LIMITS` (or `max_layers`): there would be too many to try.
    """
    num_choices = len(problem.cost_A)
    limit = LIMITS.get(num_choices, 4) if max_layers is None else max_layers
    if problem.num_layers > limit:
        raise InputError(
            sentence(
                f"exhaustive search over {num_choices} choices",
                allowed=f"at most {limit} layers",
                got=problem.num_layers,
                do="use greedy or best_of, or raise max_layers if you have the time",
            )
        )
    every_NL = np.array(
        list(itertools.product(range(num_choices), repeat=problem.num_layers)), dtype=np.int64
    )
    spent_N = problem.spent(every_NL)
    order_N = np.argsort(spent_N, kind="stable")
    return np.asarray(every_NL[order_N][spent_N[order_N] <= budget + 1e-9])


def random_patterns(
    rng: np.random.Generator, *, num_rows: int, num_layers: int, budget: float, cost_A: Sequence[float]
) -> Ints:
    """Return patterns that spend as much of the budget as fits, (num_rows, L).

    All layers start with the cheapest cost; then random layers rise to the next one until no rise fits. Among
    choices of equal cost each is as likely as the other.
    """
    levels = np.unique(np.asarray(cost_A, dtype=np.float64))
    level_PL = np.zeros((num_rows, num_layers), dtype=np.int64)
    steps = np.append(np.diff(levels), np.inf)
    while True:
        left_P = budget - levels[level_PL].sum(axis=1)
        fits_PL = steps[level_PL] <= left_P[:, None] + 1e-9
        rows = np.flatnonzero(fits_PL.any(axis=1))
        if not rows.size:
            return _at_levels(rng, level_PL, levels, cost_A)
        key_PL: Floats = rng.random((rows.size, num_layers)) * fits_PL[rows] - (~fits_PL[rows])
        level_PL[rows, key_PL.argmax(axis=1)] += 1


def _at_levels(rng: np.random.Generator, level_PL: Ints, levels: Floats, cost_A: Sequence[float]) -> Ints:
    out_PL = np.empty_like(level_PL)
    for index, level in enumerate(levels):
        options = np.flatnonzero(np.asarray(cost_A) == level)
        is_here = level_PL == index
        out_PL[is_here] = rng.choice(options, size=int(is_here.sum()))
    return out_PL
