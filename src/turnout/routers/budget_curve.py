"""This module learns quality as a curve over the budget of output tokens: a level per family, and steps.

`q(x, m, b) = mean_mb + level_m(x) + step_mb(x)`: both parts are ridge heads with penalties of their own, so a
budget with few observations leans on what the other budgets say about the query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.budget_families import Families, family_means
from turnout.routers.heads import Heads, heads_from, learn_heads
from turnout.routers.least_squares import solve
from turnout.routers.length_curve import columns_by_rows
from turnout.routers.means import column_mean


@dataclass(frozen=True, slots=True)
class BudgetCurve:
    """The heads of M candidates in G families."""

    mean_M: Floats
    level: Heads
    """One column per family; without a head for families that are not needed."""
    step: Heads
    """One column per candidate."""

    def predict(self, x_QF: np.ndarray, families: Families) -> tuple[Floats, Floats]:
        """Return qualities and their standard errors, both of shape (Q, M)."""
        level_QG, level_error_QG = self.level.predict(x_QF)
        step_QM, step_error_QM = self.step.predict(x_QF)
        level_QM, level_error_QM = level_QG[:, families.of_M], level_error_QG[:, families.of_M]
        quality_QM = self.mean_M + level_QM + np.nan_to_num(step_QM, nan=0.0)
        step_error_QM = np.where(np.isfinite(step_error_QM), step_error_QM, 0.0)
        return quality_QM, np.sqrt(level_error_QM**2 + step_error_QM**2)

    def levels(self, x_NF: np.ndarray, family: int) -> Floats:
        """Return the level of one family, shape (N,)."""
        level_N: Floats = self.level.predict(x_NF)[0][:, family]
        return level_N

    def with_added(self, mean: Floats, step: Heads, level: Heads | None) -> BudgetCurve:
        """Return these and one more candidate, of a known family or with the level of a new one."""
        levels = self.level if level is None else self.level.with_added(level)
        return BudgetCurve(np.append(self.mean_M, mean), levels, self.step.with_added(step))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `budget_curve_from` reads it back."""
        parts = {"level": self.level, "step": self.step}
        heads = {f"{part}:{n}": a for part, heads in parts.items() for n, a in heads.arrays().items()}
        return {"curve.mean": self.mean_M, **heads}


def budget_curve_from(arrays: Mapping[str, np.ndarray]) -> BudgetCurve:
    """Rebuild from `BudgetCurve.arrays`."""

    def part(name: str) -> Heads:
        return heads_from({n.partition(":")[2]: a for n, a in arrays.items() if n.startswith(f"{name}:")})

    return BudgetCurve(arrays["curve.mean"], part("level"), part("step"))


def learn_budget_curve(
    x_NF: np.ndarray, quality_NM: Floats, families: Families, penalties: Sequence[float]
) -> BudgetCurve:
    """Fit levels to the mean of each family's members, and steps to what each member leaves over."""
    x_NF = np.asarray(x_NF, np.float64)
    level_NG = family_means(families, quality_NM - column_mean(quality_NM))
    level = learn_heads(x_NF, level_NG, np.zeros(level_NG.shape[1]), penalties)
    # What is left over counts from levels that did not see the row, as they won't see a new query.
    over_NM = quality_NM - _left_out(x_NF, level_NG, penalties)[:, families.of_M]
    # A candidate that is alone in its family needs no step: its level says all.
    is_alone_G = np.bincount(families.of_M, minlength=len(families.keys)) < 2
    mean_M = column_mean(over_NM)
    _, step = learn_steps(x_NF, np.where(is_alone_G[families.of_M], np.nan, over_NM), penalties)
    return BudgetCurve(mean_M, Heads(level, np.zeros(level_NG.shape[1])), step)


def learn_steps(x_NF: np.ndarray, over_NM: Floats, penalties: Sequence[float]) -> tuple[Floats, Heads]:
    """Return the means of what is above the level, and the heads of what varies around them."""
    mean_M = column_mean(over_NM)
    none_M = np.zeros(over_NM.shape[1])
    return mean_M, Heads(
        learn_heads(np.asarray(x_NF, np.float64), over_NM - mean_M, none_M, penalties), none_M
    )


def _left_out(x_NF: Floats, y_NG: Floats, penalties: Sequence[float]) -> Floats:
    left_out_NG = np.zeros_like(y_NG)
    for known_N, columns in columns_by_rows(y_NG):
        found = solve(x_NF[known_N], y_NG[np.ix_(known_N, columns)], penalties)
        left_out_NG[np.ix_(known_N, columns)] = found.left_out_NH
    return left_out_NG
