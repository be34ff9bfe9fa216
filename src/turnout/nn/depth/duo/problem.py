"""This module states what an oracle searches, for any router of depth or width, and what it returns.

Letters here: P trials, Q items (sequences or tokens), K budgets, A choices per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_number

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Loss = Callable[[Ints, Ints], Any]
"""`loss(item_P, choice_PL)` returns the loss of each trial: item `item_P[p]` under pattern `choice_PL[p]`."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Items, layers, and what each choice in a layer costs.

    `cost_A[a]` is the cost of choice a in one layer, in units of the budget: (0, 1) counts big modules,
    (0, 1, 0) those beside small and skip, (0, 1, 2) the executions of layers that skip, run or repeat.
    """

    loss: Loss
    num_items: int
    num_layers: int
    cost_A: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_items < 1 or self.num_layers < 1 or len(self.cost_A) < 2 or min(self.cost_A) < 0:
            got = (self.num_items, self.num_layers, tuple(self.cost_A))
            allowed = "at least one item and layer, and two or more costs that are not negative"
            raise InputError(sentence("Problem: (num_items, num_layers, cost_A)", allowed=allowed, got=got))

    def spent(self, choice: Ints) -> Floats:
        """Return the cost of patterns (..., L), shape (...)."""
        return np.asarray(np.asarray(self.cost_A, dtype=np.float64)[choice].sum(axis=-1))

    def evaluate(self, item_P: Ints, choice_PL: Ints) -> Floats:
        """Return the loss of each trial, (P,); raises for a loss function that returns something else."""
        if choice_PL.size and (choice_PL.min() < 0 or choice_PL.max() >= len(self.cost_A)):
            raise InputError(sentence("Problem: a choice", allowed=f"0 to {len(self.cost_A) - 1}"))
        found_P = np.asarray(self.loss(item_P, choice_PL), dtype=np.float64)
        if found_P.shape != item_P.shape:
            raise ShapeError(sentence("Problem: the losses", allowed=item_P.shape, got=found_P.shape))
        if not np.isfinite(found_P).all():
            raise InputError(sentence("Problem: a loss", allowed="a finite number", got="nan or infinite"))
        return found_P

    def of_items(self, choice_QL: Ints) -> Floats:
        """Return the loss of every item under its own pattern; a pattern (L,) serves all, shape (Q,)."""
        each_QL = np.broadcast_to(choice_QL, (self.num_items, *np.shape(choice_QL)[-1:]))
        return self.evaluate(np.arange(self.num_items), each_QL.copy())

    def check_budgets(self, budgets: Sequence[float]) -> list[float]:
        """Return the budgets in rising order; each must afford the cheapest pattern."""
        low, high = (self.num_layers * end for end in (min(self.cost_A), max(self.cost_A)))
        if not budgets:
            raise InputError(sentence("oracle: budgets", allowed="one or more", got="none"))
        return sorted(check_number("oracle: a budget", b, low=low, high=high) for b in budgets)


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """What was found for every budget and item; `spent <= budget` holds in every one.

    The mean loss never rises with the budget.
    """

    budget_K: Floats
    loss_KQ: Floats
    choice_KQL: Ints

    def loss_at(self, budget: float) -> Floats:
        """Return the loss of every item at a budget between the searched ones, (Q,).

        Between two budgets a share of the work runs at each, so the loss is on the line between them.
        Above the last budget nothing better is known. Raises `InputError` below the first.
        """
        check_number("oracle: budget", budget, low=float(self.budget_K[0]) - 1e-9)
        upper = int(np.searchsorted(self.budget_K, budget, side="left"))
        if upper == 0 or upper == len(self.budget_K):
            return np.asarray(self.loss_KQ[min(upper, len(self.budget_K) - 1)])
        low, high = self.budget_K[upper - 1], self.budget_K[upper]
        share = (budget - low) / (high - low)
        return np.asarray((1 - share) * self.loss_KQ[upper - 1] + share * self.loss_KQ[upper])

    def share_KL(self, choice: int = 1) -> Floats:
        """Return how often each layer takes a choice, (K, L): where the oracle spends its budget."""
        return np.asarray((self.choice_KQL == choice).mean(axis=1))


def improved(budgets: Sequence[float], found: Sequence[tuple[Floats, Ints]]) -> Oracle:
    """Return an oracle from (loss_Q, choice_QL) per budget; a find serves every larger budget too."""
    losses, choices = [found[0][0]], [found[0][1]]
    for loss_Q, choice_QL in found[1:]:
        is_better_Q = loss_Q < losses[-1]
        losses.append(np.where(is_better_Q, loss_Q, losses[-1]))
        choices.append(np.where(is_better_Q.reshape(-1, *[1] * (choice_QL.ndim - 1)), choice_QL, choices[-1]))
    return Oracle(budget_K=np.array(budgets), loss_KQ=np.stack(losses), choice_KQL=np.stack(choices))
