"""This module is the random oracle: the best of n random routings of every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.validation import check_count
from turnout.nn.depth.duo.patterns import random_patterns
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem, improved


def best_of(
    problem: Problem,
    *,
    budgets: Sequence[float],
    rng: np.random.Generator,
    num_draws: int = 100,
    num_tokens: int | None = None,
) -> tuple[Oracle, Floats]:
    """Return the best of `num_draws` random routings of every item, and the loss of each draw, (K, N, Q).

    Source: S22, Duo-LLM (arXiv 2410.10846), section 4: best of 100. The losses tell the two readings of that
    apart: the best draw of each item, which is the oracle here, and the best draw of all items together,
    `loss_KNQ.mean(2).min(1)`. A draw spends as much of the budget as fits. With `num_tokens` a draw is
    (T, L): each token of an item has a pattern of its own within the budget, and the loss is asked about
    choices (P, T, L). Cost: `num_draws` trials per item and budget.
    """
    check_count("best_of: num_draws", num_draws)
    ordered = problem.check_budgets(budgets)
    found, losses = [], []
    for budget in ordered:
        loss_NQ, choice_QL = _search(problem, budget, rng, num_draws, num_tokens)
        found.append((loss_NQ.min(axis=0), choice_QL))
        losses.append(loss_NQ)
    return improved(ordered, found), np.stack(losses)


def _search(
    problem: Problem, budget: float, rng: np.random.Generator, num_draws: int, num_tokens: int | None
) -> tuple[Floats, Ints]:
    shape = (problem.num_items,) if num_tokens is None else (problem.num_items, num_tokens)
    item_Q = np.arange(problem.num_items)
    best_Q, losses = np.full(problem.num_items, np.inf), []
    best_QL = np.zeros((*shape, problem.num_layers), dtype=np.int64)
    for _ in range(num_draws):
        drawn_PL = random_patterns(
            rng,
            num_rows=int(np.prod(shape)),
            num_layers=problem.num_layers,
            budget=budget,
            cost_A=problem.cost_A,
        )
        choice_QL = drawn_PL.reshape(best_QL.shape)
        loss_Q = problem.evaluate(item_Q, choice_QL)
        is_better_Q = loss_Q < best_Q
        best_Q = np.minimum(loss_Q, best_Q)
        losses.append(loss_Q)
        best_QL[is_better_Q] = choice_QL[is_better_Q]
    return np.stack(losses), best_QL
