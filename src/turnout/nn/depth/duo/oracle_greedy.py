"""This module is the greedy oracle: it changes one layer, two, or trades among three, while that helps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from turnout.core.validation import check_count
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem, improved

TRADE = 3
"""Layers that change at once only where they spend the same together."""


def greedy(problem: Problem, *, budgets: Sequence[float], max_rounds: int = 100) -> Oracle:
    """Return for every budget what coordinate descent finds for each item.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.2. Differs: the steepest change is taken first; where
    no single change helps, two layers may change at once, since at its budget's edge a pattern can only move
    a big module from one layer to another; with three cost levels or more three layers may trade what they
    spend, such as one repeat for two skipped layers; each budget starts from the find of the one before.

    On separable losses it finds the optimum, if there are two cost levels, or three evenly spaced ones such
    as (0, 1, 2): any better pattern is reached by changes of one to three layers that keep the budget, each
    a gain by itself. With other costs it may miss it. Cost: about b L A + L^2 trials per item with two
    levels, and about L^3 / 6 where three layers trade.
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
    most = 2 if len(set(problem.cost_A)) < 3 else TRADE
    for _ in range(max_rounds):
        stuck = active
        for num_changes in range(1, most + 1):
            stuck = _step(problem, budget, loss_Q, choice_QL, stuck, num_changes=num_changes)
        active = np.setdiff1d(active, stuck)
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
    """Return the patterns within the budget that differ in exactly `num_changes` layers, (N, L).

    Of three layers only trades: each spends more or less than before, and together they spend the same.
    """
    cost_A = np.asarray(problem.cost_A, dtype=np.float64)
    values_NC = np.array(list(itertools.product(range(len(cost_A)), repeat=num_changes)))
    rows = []
    for layers in itertools.combinations(range(problem.num_layers), num_changes):
        own = choice_L[list(layers)]
        is_new_N = (values_NC != own).all(1)
        if num_changes == TRADE:
            change_NC = cost_A[values_NC] - cost_A[own]
            is_new_N &= (change_NC != 0).all(1) & (np.abs(change_NC.sum(1)) < 1e-9)
        row_NL = np.tile(choice_L, (int(is_new_N.sum()), 1))
        row_NL[:, list(layers)] = values_NC[is_new_N]
        rows.append(row_NL)
    trial_NL = np.concatenate(rows) if rows else np.empty((0, problem.num_layers), dtype=np.int64)
    return np.asarray(trial_NL[problem.spent(trial_NL) <= budget + 1e-9])
