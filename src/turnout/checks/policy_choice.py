"""This module checks whom a policy chooses: masks, caps, dominance, prices, and what is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from turnout.checks.deciding import (
    BUDGETS,
    decide_at,
    require_deterministic,
    require_same_choices,
)
from turnout.checks.fixtures import small_estimate
from turnout.checks.report import require
from turnout.core.budget import Budget
from turnout.core.contracts import Policy
from turnout.core.decision import NONE
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools
from turnout.core.rng import make_rng

_PRICES = (0.0, 1.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 1e5, math.inf)


def masks_are_obeyed(policy: Policy) -> None:
    """Whoever is not allowed is not chosen, at any budget."""
    estimate = small_estimate().restrict(some_mask(small_estimate()))
    for budget in BUDGETS:
        choice_Q = decide_at(policy, estimate, budget).choice_Q
        wrong = [q for q, m in enumerate(choice_Q) if m != NONE and not estimate.allowed_QM[q, m]]
        require(not wrong, policy, "it chose a candidate that the mask forbids", got=f"queries {wrong[:5]}")


def nobody_allowed_gives_nobody(policy: Policy) -> None:
    """A query that nobody may serve gets -1, and the others are decided as ever."""
    estimate = small_estimate()
    open_Q = np.arange(estimate.num_queries) % 4 > 0
    closed = estimate.restrict(np.repeat(open_Q[:, None], len(estimate.names), axis=1))
    choice_Q = decide_at(policy, closed, Budget()).choice_Q
    require((choice_Q[~open_Q] == NONE).all(), policy, "nobody was allowed, and somebody was chosen")
    require((choice_Q[open_Q] != NONE).all(), policy, "somebody was allowed, and nobody was chosen")


def hard_caps_are_obeyed(policy: Policy) -> None:
    """The expected cost and latency of a choice stay under the caps of one query; else nobody serves."""
    estimate = small_estimate()
    caps = (
        (Budget(usd_per_query=0.0003), "cost_usd_QM", 0.0003),
        (Budget(max_latency_s=1.0), "latency_s_QM", 1.0),
    )
    for budget, name, cap in caps:
        choice_Q = decide_at(policy, estimate, budget).choice_Q
        value_Q = getattr(estimate, name)[np.arange(choice_Q.size), choice_Q]
        over = value_Q[(choice_Q != NONE) & (value_Q > cap)]
        require(not over.size, policy, f"it broke the cap on {name}", allowed=f"at most {cap:g}", got=over)


def a_dominated_candidate_is_not_chosen(policy: Policy) -> None:
    """Nobody is chosen while another allowed one is strictly better, and not dearer, slower or less sure."""
    estimate = small_estimate().restrict(some_mask(small_estimate()))
    for budget in BUDGETS:
        require_deterministic(policy, estimate, budget)
        for row, choice in enumerate(decide_at(policy, estimate, budget).choice_Q):
            better = dominators(estimate, row, int(choice)) if choice != NONE else []
            what = f"query {row} got {estimate.names[choice]!r} at {budget}"
            require(not better, policy, what, allowed="nobody that another one dominates", got=better)


def the_order_of_candidates_does_not_matter(policy: Policy) -> None:
    """Columns in another order give the same names."""
    estimate = small_estimate()
    shuffled = estimate.reorder([estimate.names[index] for index in (2, 0, 3, 1)])
    for budget in BUDGETS:
        require_deterministic(policy, estimate, budget)
        first, second = decide_at(policy, estimate, budget), decide_at(policy, shuffled, budget)
        require_same_choices(policy, "the order of the candidates changed a choice", first, second)


def ties_do_not_depend_on_order(policy: Policy) -> None:
    """Where all candidates look alike, the choice is still by name and not by position."""
    estimate = small_estimate()
    same_QM = np.full(estimate.quality_QM.shape, 0.5)
    flat = replace(estimate, quality_QM=same_QM, cost_usd_QM=same_QM, spread_QM=same_QM)
    shuffled = flat.reorder([flat.names[index] for index in (2, 0, 3, 1)])
    for budget in (Budget(), Budget(price=1.0), Budget(price=math.inf)):
        require_deterministic(policy, flat, budget)
        first, second = decide_at(policy, flat, budget), decide_at(policy, shuffled, budget)
        require_same_choices(policy, "a tie was broken by position", first, second)


def a_batch_equals_one_by_one(policy: Policy) -> None:
    """Without a cap on the batch, no query's decision depends on another's."""
    estimate = small_estimate(12)
    for budget in (Budget(), Budget(price=100.0), Budget(price=math.inf)):
        require_deterministic(policy, estimate, budget)
        batch = decide_at(policy, estimate, budget)
        single = [decide_at(policy, estimate.rows([row]), budget).names_Q[0] for row in range(12)]
        require(list(batch.names_Q) == single, policy, "a batch differs from its queries one by one")


def cost_never_rises_with_the_price(policy: Policy) -> None:
    """A higher price of money buys a mean cost that is lower or the same."""
    estimate = small_estimate(120)
    require_deterministic(policy, estimate, Budget())
    costs = [float(decide_at(policy, estimate, Budget(price=p)).cost_usd_Q.mean()) for p in _PRICES]
    for index in range(1, len(costs)):
        is_right = costs[index] <= costs[index - 1] * (1 + 1e-12)
        what = f"mean cost rose between the prices {_PRICES[index - 1]:g} and {_PRICES[index]:g}"
        require(is_right, policy, what, allowed=f"at most {costs[index - 1]:g}", got=costs[index])


def an_unknown_quality_is_not_chosen(policy: Policy) -> None:
    """NaN is not a quality: whoever is known and allowed goes first."""
    estimate = small_estimate()
    quality_QM = estimate.quality_QM.copy()
    quality_QM[make_rng(5, "checks").random(quality_QM.shape) < 0.4] = np.nan
    quality_QM[:, 0] = np.where(np.isnan(quality_QM).all(axis=1), 0.3, quality_QM[:, 0])
    _require_known(
        policy, replace(estimate, quality_QM=quality_QM), "quality_QM", (Budget(), Budget(price=100.0))
    )


def an_unknown_cost_is_not_free(policy: Policy) -> None:
    """At a positive price, and under a cap, a candidate of unknown cost stands behind the known ones."""
    estimate = small_estimate()
    cost_usd_QM = estimate.cost_usd_QM.copy()
    cost_usd_QM[:, 2] = np.nan
    cost_usd_QM[::3, 0] = np.nan
    budgets = (
        Budget(price=1.0),
        Budget(price=math.inf),
        Budget(usd_per_query=0.02, price=0.0),
    )
    _require_known(policy, replace(estimate, cost_usd_QM=cost_usd_QM), "cost_usd_QM", budgets)


def some_mask(estimate: Estimate) -> Bools:
    """Return a mask of shape (Q, M) that forbids a third, and leaves at least one candidate a query."""
    mask_QM = make_rng(6, "checks", "mask").random(estimate.quality_QM.shape) > 0.33
    mask_QM[:, 1] |= ~mask_QM.any(axis=1)
    return mask_QM


def dominators(estimate: Estimate, row: int, choice: int) -> list[str]:
    """Return who is allowed, strictly better than `choice`, and in no other respect worse."""
    is_better = estimate.quality_QM[row] > estimate.quality_QM[row, choice]
    for name in ("cost_usd_QM", "spread_QM", "latency_s_QM"):
        array_QM = getattr(estimate, name)
        is_better &= array_QM[row] <= array_QM[row, choice]
    return [estimate.names[index] for index in np.flatnonzero(is_better & estimate.allowed_QM[row])]


def _require_known(policy: Policy, estimate: Estimate, name: str, budgets: tuple[Budget, ...]) -> None:
    array_QM = getattr(estimate, name)
    for budget in budgets:
        choice_Q = decide_at(policy, estimate, budget).choice_Q
        value_Q = array_QM[np.arange(choice_Q.size), choice_Q]
        wrong = np.flatnonzero((choice_Q != NONE) & np.isnan(value_Q))
        what = f"it chose a candidate whose {name} is unknown, at {budget}"
        require(not wrong.size, policy, what, allowed="a known one", got=f"queries {wrong[:5].tolist()}")


CHECKS: tuple[Callable[[Policy], None], ...] = (
    masks_are_obeyed,
    nobody_allowed_gives_nobody,
    hard_caps_are_obeyed,
    a_dominated_candidate_is_not_chosen,
    the_order_of_candidates_does_not_matter,
    ties_do_not_depend_on_order,
    a_batch_equals_one_by_one,
    cost_never_rises_with_the_price,
    an_unknown_quality_is_not_chosen,
    an_unknown_cost_is_not_free,
)
"""The promises about the choice."""
