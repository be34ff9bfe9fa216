"""This module fits logistic regressions over one design, side by side.

`p = sigmoid(b + (x - centre) . w)`, fitted by the log loss plus `penalty / 2 |w|^2`. Source: D. R. Cox,
JRSS B 20(2), 1958; S. le Cessie, J. C. van Houwelingen, Applied Statistics 41(1), 1992, for the penalty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from turnout.core.outcomes import Floats
from turnout.routers.adam import sigmoid
from turnout.routers.lbfgs import minimise

_STEPS = 80
_EDGE = 0.5


@dataclass(frozen=True, slots=True)
class LogisticHeads:
    """C regressions."""

    centre_F: Floats
    weight_FC: Floats
    intercept_C: Floats
    axes_FF: Floats
    values_F: Floats
    """Eigenvectors, in columns, and eigenvalues of the centred Gram matrix, the penalty added."""
    num_rows: Floats
    """Known rows of each column, shape (C,)."""

    def predict(self, x_QF: np.ndarray) -> tuple[Floats, Floats]:
        """Return probabilities and their variances, both of shape (Q, C).

        The variance is `p (1 - p)` times the leverage of the query, as if every row were as sure as it; p is
        drawn to a half by two rows, for what never happened may, and a column that is known on a part of
        the rows has that part of their weight.
        """
        away_QF = np.asarray(x_QF, np.float64) - self.centre_F
        # A text of which nothing is known is read as the mean.
        away_QF[np.count_nonzero(x_QF, axis=1) == 0] = 0.0
        p_QC = sigmoid(self.intercept_C + away_QF @ self.weight_FC)
        num_C = np.maximum(self.num_rows, 1.0)
        drawn_QC = (num_C * p_QC + 1.0) / (num_C + 2.0)
        apart_Q1 = (np.square(away_QF @ self.axes_FF) @ (1.0 / self.values_F))[:, None]
        return p_QC, drawn_QC * (1.0 - drawn_QC) * (apart_Q1 * num_C.max() + 1.0) / num_C

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `logistic_heads_from` reads it back."""
        return {f.name: getattr(self, f.name) for f in fields(LogisticHeads)}


def logistic_heads_from(arrays: Mapping[str, np.ndarray]) -> LogisticHeads:
    """Rebuild from `LogisticHeads.arrays`."""
    return LogisticHeads(*(arrays[f.name] for f in fields(LogisticHeads)))


def fit_logistic(x_NF: np.ndarray, target_NC: Floats, penalty: float) -> LogisticHeads:
    """Fit a head to every column; a target in [0, 1] counts as that share, NaN cells do not count."""
    x_NF = np.asarray(x_NF, np.float64)
    centre_F = x_NF.mean(axis=0)
    away_NG = np.column_stack([x_NF - centre_F, np.ones(len(x_NF))])
    known_NC = np.isfinite(target_NC).astype(np.float64)
    filled_NC = np.nan_to_num(target_NC)
    ridge_G1 = np.append(np.full(x_NF.shape[1], penalty), 1e-3)[:, None]
    num_C = known_NC.sum(axis=0)
    # Half a right and half a wrong answer more, so that a start exists for what never happens.
    mean_C = (filled_NC.sum(axis=0) + _EDGE) / (num_C + 2.0 * _EDGE)
    start_GC = np.zeros((away_NG.shape[1], target_NC.shape[1]))
    start_GC[-1] = np.log(mean_C / (1.0 - mean_C))
    scale = 1.0 / max(float(known_NC.sum()), 1.0)

    def loss(theta_GC: Floats) -> tuple[float, Floats]:
        z_NC = away_NG @ theta_GC
        log_NC = (np.logaddexp(0.0, z_NC) - filled_NC * z_NC) * known_NC
        move_GC = ridge_G1 * (theta_GC - start_GC)
        value = float(log_NC.sum()) + 0.5 * float((move_GC * (theta_GC - start_GC)).sum())
        slope_GC = away_NG.T @ ((sigmoid(z_NC) - filled_NC) * known_NC) + move_GC
        return scale * value, scale * slope_GC

    theta_GC = minimise(loss, start_GC, steps=_STEPS, tolerance=1e-8)
    values_F, axes_FF = np.linalg.eigh(away_NG[:, :-1].T @ away_NG[:, :-1])
    return LogisticHeads(
        centre_F,
        theta_GC[:-1],
        theta_GC[-1],
        axes_FF,
        np.maximum(values_F, 0.0) + max(penalty, 1e-6),
        num_C,
    )
