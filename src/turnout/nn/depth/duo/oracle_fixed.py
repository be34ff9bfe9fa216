"""This module finds the one pattern for all items that is best on average: the best fixed routing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.nn.depth.duo.oracle_exhaustive import table
from turnout.nn.depth.duo.patterns import all_patterns
from turnout.nn.depth.duo.problem import Ints, Problem


def best_fixed(problem: Problem, *, budgets: Sequence[float], max_layers: int | None = None) -> Ints:
    """Return for every budget, in rising order, the pattern with the least mean loss, (K, L).

    Choose it on training items and judge it on others. Source: the fixed patterns that S22, Duo-LLM
    (arXiv 2410.10846), section 4, compares routers with. Raises and costs as `exhaustive`.
    """
    ordered = problem.check_budgets(budgets)
    pattern_NL = all_patterns(problem, budget=ordered[-1], max_layers=max_layers)
    mean_N = table(problem, pattern_NL).mean(axis=1)
    spent_N = problem.spent(pattern_NL)
    best = [int(mean_N[spent_N <= budget + 1e-9].argmin()) for budget in ordered]
    return np.asarray(pattern_NL[best])
