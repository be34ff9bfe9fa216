"""This module holds a calibrated frontier: what each price of money gave on queries set aside for it.

It turns a `Goal` into a price for the router, and into the single model that would serve the goal best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.scoring import LEAST_PRICE
from turnout.policies.pairs import Difference, Pairs
from turnout.policies.risk import fixed_sequence

_BEST, _OWN = 0, 1
"""Columns of `Frontier.singles`."""
_ROUNDING = 1e-9


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One way to serve a goal: an option of the router, or a single model."""

    index: int
    """Index of the price, or of the candidate."""
    is_kept: bool
    """Whether the calibration split supports the goal at its risk and confidence."""
    by_definition: Literal["best", "free"] | None = None
    """Why the goal is kept without a test: it is the best single model itself, or it costs nothing."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The router at P increasing prices, and M single models, on the calibration split."""

    price_P: Floats
    options: Pairs
    """Prices against single models, (P, M)."""
    singles: Pairs
    """Single models against the best one and against themselves, (M, 2): see `measure_singles`."""
    quality_M: Floats
    """Mean quality of each single model on the fit split."""
    usd_M: Floats
    """Mean cost of each single model on the fit split, NaN without costs."""
    best: int
    """The best single model, chosen on training queries that the models share."""
    num_late: int = 0
    """Candidates at the end that joined after calibration: only a test of their own rows speaks for them."""

    @property
    def count(self) -> int:
        """Calibration queries on which the choice at price 0 and the best single model are both known."""
        return int(self.options.at("count", 0, self.best))

    def count_of(self, single: int) -> int:
        """Return the calibration queries on which a single model and the best one are both known."""
        return int(self.singles.at("count", single, _BEST))

    @property
    def calibrated_usd_M(self) -> Floats:
        """`usd_M`, unknown of those that joined later."""
        is_late_M = np.arange(self.usd_M.size) >= self.usd_M.size - self.num_late
        return np.where(is_late_M, np.nan, self.usd_M)

    @property
    def least_price(self) -> float:
        """The lowest price where money is asked for: above 0 if only some candidates have a known cost.

        At price 0 the others would be chosen as if they cost nothing.
        """
        is_known_M = np.isfinite(self.usd_M[: self.usd_M.size - self.num_late])
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
            passed = fixed_sequence(
                (self._floor_p(self.options, k, goal, best=self.best) for k in range(size)), delta
            )
            return Finding(index=max(passed - 1, 0), is_kept=passed > 0)
        self._require_costs()
        first = min(int(self.price_P.searchsorted(self.least_price)), size - 1)
        is_free = bool((self.usd_M[np.isfinite(self.usd_M)] == 0.0).all())
        p_values = (
            self._cap_p(self.options, k, goal, best=self.best, is_free=is_free)
            for k in reversed(range(first, size))
        )
        passed = fixed_sequence(p_values, delta)
        index = min(size - passed, size - 1)
        return Finding(index=index, is_kept=passed > 0, by_definition="free" if is_free else None)

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
            p_values = [self._floor_p(self.singles, m, goal, best=_BEST) for m in range(num)]
            kept_M = np.array(p_values) <= delta
            is_own = goal.quality_floor <= 1.0
            kept_M[self.best] |= is_own
            usd_M = np.where(kept_M, self.usd_M, np.nan)
            index = self._cheapest(usd_M, first=self.best) if np.isfinite(usd_M).any() else self.best
            reason: Literal["best"] | None = "best" if is_own and index == self.best else None
            return Finding(index=index, is_kept=bool(kept_M[index]), by_definition=reason)
        self._require_costs()
        is_free_M = self.usd_M == 0.0
        p_values = [
            self._cap_p(self.singles, m, goal, best=_BEST, is_free=bool(is_free_M[m])) for m in range(num)
        ]
        kept_M = np.array(p_values) <= delta
        if not kept_M.any():
            return Finding(index=self._cheapest(self.calibrated_usd_M), is_kept=False)
        index = int(np.where(kept_M, np.nan_to_num(self.quality_M, nan=-1), -2).argmax())
        return Finding(index=index, is_kept=True, by_definition="free" if is_free_M[index] else None)

    def keeps(self, goal: Goal, pairs: Pairs, row: int) -> bool:
        """Return whether an option of other pairs keeps the goal by the same test; at a price nothing is."""
        if goal.quality_floor is not None:
            return self._floor_p(pairs, row, goal, best=self.best) <= 1 - goal.confidence
        if goal.usd_per_1k is not None:
            return self._cap_p(pairs, row, goal, best=self.best, is_free=False) <= 1 - goal.confidence
        return True

    def nearest(self, price: float) -> int:
        """Return the index of the largest calibrated price that is at most `price`."""
        return max(int(np.searchsorted(self.price_P, price, side="right")) - 1, 0)

    def outcome(self, *, option: int | None = None, single: int | None = None) -> tuple[float, float]:
        """Return mean quality and mean usd of one query on the calibration split.

        Where cells were not observed the mean of what stands in for them may pass the ends of the scale a
        little; what is said stays within it.
        """
        if option is not None:
            usd = self.options.spend(option, self.best).mean
            return _exact(self.options.at("quality", option, self.best)), usd
        row = self.best if single is None else single
        return _exact(self.singles.at("quality", row, _OWN)), self.singles.at("usd", row, _OWN)

    def _best_at(self, price: float) -> int:
        if price == 0.0:
            return self.best
        self._require_costs()
        if np.isinf(price):
            return self._cheapest(self.calibrated_usd_M)
        return int(np.nanargmax(self.quality_M - price * self.usd_M))

    def _cheapest(self, usd_M: Floats, *, first: int | None = None) -> int:
        """Return the cheapest of known cost; of equals `first` if it is one, else that of highest quality.

        Equal is what differs by the rounding of a mean.
        """
        equal_M = usd_M <= np.nanmin(usd_M) * (1.0 + _ROUNDING)
        if first is not None and equal_M[first]:
            return first
        quality_M = np.where(equal_M, np.nan_to_num(self.quality_M, nan=-1.0), -2.0)
        return int(quality_M.argmax())

    def _floor_p(self, pairs: Pairs, row: int, goal: Goal, *, best: int) -> float:
        difference = pairs.quality(row, best, share=goal.quality_floor or 0.0)
        return _shifted(difference, goal.risk).p_value()

    def _cap_p(self, pairs: Pairs, row: int, goal: Goal, *, best: int, is_free: bool) -> float:
        if is_free:
            return 0.0
        spend = pairs.spend(row, best)
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
    """Return a mean quality in [0, 1], without the rounding of its sum, which reads like 5.6e-17."""
    return min(max(round(mean, 12), 0.0), 1.0) if mean == mean else mean


def _shifted(difference: Difference, by: float) -> Difference:
    return Difference(mean=difference.mean + by, variance=difference.variance, count=difference.count)
