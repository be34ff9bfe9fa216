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
    """Return the best of `num_draws` random routings of every item, and the mean over all draws, (K, Q).

    Source: S22, Duo-LLM (arXiv 2410.10846), section 4: best of 100. A draw spends as much of the budget as
    fits. With `num_tokens` a draw is (T, L): each token of an item has a pattern of its own within the
    budget, and the loss function is called with choices (P, T, L). Cost:
    `num_draws` trials per item and budget.
    """
    check_count("best_of: num_draws", num_draws)
    ordered = problem.check_budgets(budgets)
    found, means = [], []
    for budget in ordered:
        loss_Q, choice_QL, mean_Q = _search(problem, budget, rng, num_draws, num_tokens)
        found.append((loss_Q, choice_QL))
        means.append(mean_Q)
    return improved(ordered, found), np.stack(means)


def _search(
    problem: Problem, budget: float, rng: np.random.Generator, num_draws: int, num_tokens: int | None
) -> tuple[Floats, Ints, Floats]:
    shape = (problem.num_items,) if num_tokens is None else (problem.num_items, num_tokens)
    item_Q = np.arange(problem.num_items)
    best_Q, total_Q = np.full(problem.num_items, np.inf), np.zeros(problem.num_items)
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
        best_Q, total_Q = np.minimum(loss_Q, best_Q), total_Q + loss_Q
        best_QL[is_better_Q] = choice_QL[is_better_Q]
    return best_Q, best_QL, total_Q / num_draws
