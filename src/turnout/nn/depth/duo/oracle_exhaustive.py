"""This module is the exhaustive oracle: it tries every pattern on every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.nn.depth.duo.patterns import all_patterns
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem


def exhaustive(problem: Problem, *, budgets: Sequence[float], max_layers: int | None = None) -> Oracle:
    """Return the best pattern of every item at every budget.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.2: all C(L, b) patterns of a budget of b big layers,
    2^L in all, 3^L with skip. Differs: a budget allows b and fewer, so that more budget is never worse. Ties
    go to the cheaper pattern. Raises `InputError` for more layers than `patterns.LIMITS`, unless `max_layers`
    says otherwise. Cost: one trial for each pattern within the largest budget and item.
    """
    ordered = problem.check_budgets(budgets)
    pattern_NL = all_patterns(problem, budget=ordered[-1], max_layers=max_layers)
    loss_NQ = table(problem, pattern_NL)
    spent_N = problem.spent(pattern_NL)
    losses, choices = [], []
    for budget in ordered:
        best_Q = loss_NQ[spent_N <= budget + 1e-9].argmin(axis=0)
        losses.append(loss_NQ[best_Q, np.arange(problem.num_items)])
        choices.append(pattern_NL[best_Q])
    return Oracle(budget_K=np.array(ordered), loss_KQ=np.stack(losses), choice_KQL=np.stack(choices))


def table(problem: Problem, pattern_NL: Ints) -> Floats:
    """Return the loss of every item under every pattern, (N, Q)."""
    num_patterns, num_items = len(pattern_NL), problem.num_items
    item_P = np.tile(np.arange(num_items), num_patterns)
    loss_P = problem.evaluate(item_P, pattern_NL.repeat(num_items, axis=0))
    return loss_P.reshape(num_patterns, num_items)
