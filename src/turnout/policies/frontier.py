"""This module holds a calibrated frontier: what each price of money gave on queries set aside for it.

It turns a `Goal` into a price. Only means, variances and one covariance per price are kept, so a saved
deployment can answer a new goal at request time without the calibration data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Bools, Floats, Ints
from turnout.policies.risk import fixed_sequence, student_p_value


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """What a deployment says about a goal."""

    price: float
    """The dual price of money that is used for the goal."""
    is_kept: bool
    """Whether the calibration split supports the goal at its risk and confidence."""
    quality: float
    """Mean quality on the calibration split at this price."""
    usd_per_1k: float
    """Mean cost on the calibration split at this price, USD per 1,000 requests; NaN without costs."""
    text: str
    """The promise, or why there is none, as a sentence."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """Statistics per price on the calibration split; arrays have shape (P,), prices increase."""

    price_P: Floats
    quality_P: Floats
    """Mean quality."""
    quality_var_P: Floats
    """Sample variance of the quality."""
    covariance_P: Floats
    """Sample covariance of the quality with the best single model's on the same queries."""
    usd_P: Floats
    """Mean cost of one query in USD, NaN without costs."""
    usd_var_P: Floats
    """Sample variance of the cost."""
    best_quality_P: Floats
    """Mean quality of the best single model (chosen on the fit split) on the same queries."""
    best_var_P: Floats
    """Sample variance of the best single model's quality."""
    count_P: Ints
    """Number of calibration queries on which both the choice and the best single model were observed."""

    def promise(self, goal: Goal) -> Promise:
        """Return the price that serves `goal` and what may be said about it.

        Prices are tested in a fixed order, from the strictest (0 for a quality floor, infinity for a
        spend cap) towards the looser ones, and the search stops at the first that fails a one-sided t
        test (`risk.fixed_sequence`), so the confidence holds for the price that is finally used.
        """
        if goal.fixed_price is not None:
            index = self.nearest(goal.fixed_price)
            text = f"no promise is needed for the goal of {goal.describe()}"
            return self._promise(index, is_kept=True, text=text, price=goal.fixed_price)
        if goal.quality_floor is not None:
            return self._floor(goal, goal.quality_floor)
        return self._cap(goal, goal.usd_per_1k or 0.0)

    def nearest(self, price: float) -> int:
        """Return the index of the largest calibrated price that is at most `price`."""
        return max(int(np.searchsorted(self.price_P, price, side="right")) - 1, 0)

    def _floor(self, goal: Goal, share: float) -> Promise:
        margin_P = self.quality_P - share * self.best_quality_P + goal.risk
        variance_P = self.quality_var_P + share**2 * self.best_var_P - 2 * share * self.covariance_P
        passed = fixed_sequence(self._p_values(margin_P, variance_P), 1 - goal.confidence)
        if passed:
            text = f"quality is {goal.describe()}{self._terms(goal)}"
            return self._promise(passed - 1, is_kept=True, text=text)
        reached = self.quality_P[0] / max(float(self.best_quality_P[0]), 1e-12)
        text = (
            f"{goal.describe()} cannot be promised{self._terms(goal)}: at price 0 the calibration split "
            f"gives {reached:.1%}; price 0 is used"
        )
        return self._promise(0, is_kept=False, text=text)

    def _cap(self, goal: Goal, usd_per_1k: float) -> Promise:
        if not np.isfinite(self.usd_P).any():
            raise InputError(
                sentence(
                    "a spend cap needs costs, and the table this was calibrated on has none",
                    do="record costs or give the candidates price cards",
                )
            )
        margin_P = usd_per_1k * (1 + goal.risk) / 1000.0 - self.usd_P
        p_values_P = self._p_values(margin_P, self.usd_var_P)
        passed = fixed_sequence(p_values_P[::-1], 1 - goal.confidence)
        if passed:
            text = f"spending is {goal.describe()}{self._terms(goal)}"
            return self._promise(self.price_P.size - passed, is_kept=True, text=text)
        last = self.price_P.size - 1
        text = (
            f"{goal.describe()} cannot be promised{self._terms(goal)}: the cheapest way costs "
            f"{self.usd_P[last] * 1000:.3g}; the cheapest way is used"
        )
        return self._promise(last, is_kept=False, text=text)

    def _p_values(self, margin_P: Floats, variance_P: Floats) -> list[float]:
        """Return one-sided p-values for "the true margin is below 0"."""
        error_P = np.sqrt(np.maximum(variance_P, 0.0) / np.maximum(self.count_P, 1))
        rows = zip(margin_P.tolist(), error_P.tolist(), self.count_P.tolist(), strict=True)
        return [student_p_value(margin, error, count - 1) for margin, error, count in rows]

    def _terms(self, goal: Goal) -> str:
        slack = f", slack {goal.risk:g}" if goal.risk else ""
        return f" (confidence {goal.confidence:.0%}{slack}, {int(self.count_P.min())} calibration queries)"

    def _promise(self, index: int, *, is_kept: bool, text: str, price: float | None = None) -> Promise:
        return Promise(
            price=float(self.price_P[index]) if price is None else price,
            is_kept=is_kept,
            quality=float(self.quality_P[index]),
            usd_per_1k=float(self.usd_P[index]) * 1000.0,
            text=text,
        )


def measure_frontier(quality_PQ: Floats, usd_PQ: Floats, best_quality_Q: Floats, price_P: Floats) -> Frontier:
    """Build a `Frontier` from what each price gave on each calibration query.

    `quality_PQ` and `usd_PQ` have shape (P, Q) and `best_quality_Q` is the best single model's; what is
    NaN was not observed and is left out, price by price. Raises `InputError` where fewer than 2 remain.
    """
    known_PQ = np.isfinite(quality_PQ) & np.isfinite(best_quality_Q)
    best_PQ = np.broadcast_to(best_quality_Q, quality_PQ.shape)
    count_P = known_PQ.sum(axis=1)
    if count_P.min() < 2:
        raise InputError(
            sentence(
                "calibration: queries on which both the choice and the best single model were observed",
                allowed="at least 2 at every price",
                got=int(count_P.min()),
                do="give a larger or denser table",
            )
        )
    quality_P, quality_var_P = _moments(quality_PQ, known_PQ)
    best_quality_P, best_var_P = _moments(best_PQ, known_PQ)
    centred_PQ = (quality_PQ - quality_P[:, None]) * (best_PQ - best_quality_P[:, None])
    usd_P, usd_var_P = _moments(usd_PQ, np.isfinite(usd_PQ))
    return Frontier(
        price_P=price_P,
        quality_P=quality_P,
        quality_var_P=quality_var_P,
        covariance_P=np.where(known_PQ, centred_PQ, 0.0).sum(axis=1) / (count_P - 1),
        usd_P=usd_P,
        usd_var_P=usd_var_P,
        best_quality_P=best_quality_P,
        best_var_P=best_var_P,
        count_P=count_P,
    )


def _moments(values_PQ: Floats, known_PQ: Bools) -> tuple[Floats, Floats]:
    count_P = known_PQ.sum(axis=1)
    mean_P = np.full(count_P.size, np.nan)
    np.divide(np.where(known_PQ, values_PQ, 0.0).sum(axis=1), count_P, out=mean_P, where=count_P > 0)
    squared_P = (np.where(known_PQ, values_PQ - mean_P[:, None], 0.0) ** 2).sum(axis=1)
    return mean_P, squared_P / np.maximum(count_P - 1, 1)
