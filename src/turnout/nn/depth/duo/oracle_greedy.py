"""This module is the greedy oracle: it changes one layer at a time while that helps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from turnout.core.validation import check_count
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem, improved


def greedy(problem: Problem, *, budgets: Sequence[float], max_rounds: int = 100) -> Oracle:
    """Return for every budget what coordinate descent finds for each item.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.2. Differs: the steepest change is taken first; where
    no single change helps, two layers may change at once, since at its budget's edge a pattern can only move
    a big module from one layer to another; each budget starts from the find of the one before.
    On separable losses with two cost levels it finds the optimum. Cost: about b L A + L^2 trials per item.
    """
    check_count("greedy: max_rounds", max_rounds)
    ordered = problem.check_budgets(budgets)
    cheapest = int(np.argmin(problem.cost_A))
    choice_QL = np.full((problem.num_items, problem.num_layers), cheapest, dtype=np.int64)
    loss_Q = problem.of_items(choice_QL)
    found = []
    for budget in ordered:
        loss_Q, choice_QL = _descend(problem, budget, loss_Q, choice_QL, max_rounds)
        found.append((loss_Q, choice_QL))
    return improved(ordered, found)


def _descend(
    problem: Problem, budget: float, loss_Q: Floats, choice_QL: Ints, max_rounds: int
) -> tuple[Floats, Ints]:
    loss_Q, choice_QL = loss_Q.copy(), choice_QL.copy()
    active = np.arange(problem.num_items)
    for _ in range(max_rounds):
        stuck = _step(problem, budget, loss_Q, choice_QL, active, num_changes=1)
        still = _step(problem, budget, loss_Q, choice_QL, stuck, num_changes=2)
        active = np.setdiff1d(active, still)
        if not active.size:
            break
    return loss_Q, choice_QL


def _step(
    problem: Problem, budget: float, loss_Q: Floats, choice_QL: Ints, active: Ints, *, num_changes: int
) -> Ints:
    """Take the best change of every active item in place; return the items that found none."""
    moves = [_neighbours(problem, choice_QL[q], budget, num_changes) for q in active]
    item_P = np.repeat(active, [len(m) for m in moves])
    if not item_P.size:
        return active
    trial_PL = np.concatenate(moves)
    loss_P = problem.evaluate(item_P, trial_PL)
    stuck = []
    for item in active:
        own = np.flatnonzero(item_P == item)
        best = int(own[loss_P[own].argmin()]) if own.size else -1
        if best < 0 or loss_P[best] >= loss_Q[item]:
            stuck.append(item)
            continue
        loss_Q[item], choice_QL[item] = loss_P[best], trial_PL[best]
    return np.array(stuck, dtype=np.int64)


def _neighbours(problem: Problem, choice_L: Ints, budget: float, num_changes: int) -> Ints:
    """Return the patterns within the budget that differ in exactly `num_changes` layers, (N, L)."""
    num_choices, rows = len(problem.cost_A), []
    for layers in itertools.combinations(range(problem.num_layers), num_changes):
        for values in itertools.product(range(num_choices), repeat=num_changes):
            if all(choice_L[layer] != value for layer, value in zip(layers, values, strict=True)):
                row = choice_L.copy()
                row[list(layers)] = values
                rows.append(row)
    trial_NL = np.array(rows, dtype=np.int64).reshape(-1, problem.num_layers)
    return np.asarray(trial_NL[problem.spent(trial_NL) <= budget + 1e-9])
