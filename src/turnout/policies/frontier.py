"""This module holds a calibrated frontier: what each price of money gave on queries set aside for it.

It turns a `Goal` into a price for the router, and into the single model that would serve the goal best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.scoring import LEAST_PRICE
from turnout.policies.pairs import Difference, Pairs
from turnout.policies.risk import fixed_sequence


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One way to serve a goal: an option of the router, or a single model."""

    index: int
    """Index of the price, or of the candidate."""
    is_kept: bool
    """Whether the calibration split supports the goal at its risk and confidence."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The router at P increasing prices, and M single models, on the calibration split."""

    price_P: Floats
    options: Pairs
    """Prices against single models, (P, M)."""
    singles: Pairs
    """Single models against single models, (M, M)."""
    quality_M: Floats
    """Mean quality of each single model on the fit split."""
    usd_M: Floats
    """Mean cost of each single model on the fit split, NaN without costs."""
    best: int
    """The best single model, chosen on training queries that the models share."""

    @property
    def count(self) -> int:
        """Calibration queries on which the choice at price 0 and the best single model are both known."""
        return int(self.options.at("count", 0, self.best))

    @property
    def least_price(self) -> float:
        """The lowest price where money is asked for: above 0 if only some candidates have a known cost.

        At price 0 the others would be chosen as if they cost nothing.
        """
        is_known_M = np.isfinite(self.usd_M)
        return LEAST_PRICE if is_known_M.any() and not is_known_M.all() else 0.0

    def find_price(self, goal: Goal) -> Finding:
        """Return the price at which the router serves `goal`.

        Prices are tested in a fixed order, from the strictest (0 for a quality floor, infinity for a
        spend cap) towards the looser ones, and the search stops at the first that fails a one-sided t
        test (`risk.fixed_sequence`), so the confidence holds for the price that is finally used.
        """
        size, delta = self.price_P.size, 1 - goal.confidence
        if goal.fixed_price is not None:
            return Finding(index=self.nearest(goal.fixed_price), is_kept=True)
        if goal.quality_floor is not None:
            passed = fixed_sequence((self._floor_p(self.options, k, goal) for k in range(size)), delta)
            return Finding(index=max(passed - 1, 0), is_kept=passed > 0)
        self._require_costs()
        first = min(int(self.price_P.searchsorted(self.least_price)), size - 1)
        is_free = bool((self.usd_M[np.isfinite(self.usd_M)] == 0.0).all())
        p_values = (self._cap_p(self.options, k, goal, is_free=is_free) for k in reversed(range(first, size)))
        passed = fixed_sequence(p_values, delta)
        return Finding(index=min(size - passed, size - 1), is_kept=passed > 0)

    def find_single(self, goal: Goal) -> Finding:
        """Return the single model that serves `goal` best; tests share the error by Bonferroni.

        A floor: the cheapest that keeps it (the best single model keeps every floor up to 1 by
        definition). A cap: the best of those that keep it, else the cheapest; what costs nothing keeps
        every cap. A price: the highest mean quality minus price times mean usd. Of equally cheap ones the
        better is taken.
        """
        num, delta = self.quality_M.size, (1 - goal.confidence) / self.quality_M.size
        if goal.fixed_price is not None:
            return Finding(index=self._best_at(goal.fixed_price), is_kept=True)
        if goal.quality_floor is not None:
            kept_M = np.array([self._floor_p(self.singles, m, goal) <= delta for m in range(num)])
            kept_M[self.best] |= goal.quality_floor <= 1.0
            usd_M = np.where(kept_M, self.usd_M, np.nan)
            index = self._cheapest(usd_M) if np.isfinite(usd_M).any() else self.best
            return Finding(index=index, is_kept=bool(kept_M[index]))
        self._require_costs()
        p_values = [
            self._cap_p(self.singles, m, goal, is_free=bool(self.usd_M[m] == 0.0)) for m in range(num)
        ]
        kept_M = np.array(p_values) <= delta
        if not kept_M.any():
            return Finding(index=self._cheapest(self.usd_M), is_kept=False)
        return Finding(
            index=int(np.where(kept_M, np.nan_to_num(self.quality_M, nan=-1), -2).argmax()), is_kept=True
        )

    def nearest(self, price: float) -> int:
        """Return the index of the largest calibrated price that is at most `price`."""
        return max(int(np.searchsorted(self.price_P, price, side="right")) - 1, 0)

    def outcome(self, *, option: int | None = None, single: int | None = None) -> tuple[float, float]:
        """Return mean quality and mean usd of one query on the calibration split."""
        if option is not None:
            usd = self.options.spend(option, self.best).mean
            return _exact(self.options.at("quality", option, self.best)), usd
        column = self.best if single is None else single
        return _exact(self.singles.at("quality", column, column)), self.singles.at("usd", column, column)

    def _best_at(self, price: float) -> int:
        if price == 0.0:
            return self.best
        self._require_costs()
        if np.isinf(price):
            return self._cheapest(self.usd_M)
        return int(np.nanargmax(self.quality_M - price * self.usd_M))

    def _cheapest(self, usd_M: Floats) -> int:
        """Return the cheapest of known cost; of equals the one of the highest quality."""
        return int(np.lexsort((np.nan_to_num(-self.quality_M, nan=np.inf), usd_M))[0])  # NaN sorts last

    def _floor_p(self, pairs: Pairs, row: int, goal: Goal) -> float:
        difference = pairs.quality(row, self.best, share=goal.quality_floor or 0.0)
        return _shifted(difference, goal.risk).p_value()

    def _cap_p(self, pairs: Pairs, row: int, goal: Goal, *, is_free: bool) -> float:
        if is_free:
            return 0.0
        spend = pairs.spend(row, self.best)
        margin = (goal.usd_per_1k or 0.0) * (1 + goal.risk) / 1000.0 - spend.mean
        return Difference(mean=margin, variance=spend.variance, count=spend.count).p_value()

    def _require_costs(self) -> None:
        if not np.isfinite(self.usd_M).any():
            raise InputError(
                sentence(
                    "this goal needs costs, and the table that was calibrated on records none",
                    do="record costs, or ask for the best quality",
                )
            )


def _exact(mean: float) -> float:
    """Return a mean without the rounding of its sum, which reads like a quality of 5.6e-17."""
    return round(mean, 12)


def _shifted(difference: Difference, by: float) -> Difference:
    return Difference(mean=difference.mean + by, variance=difference.variance, count=difference.count)
