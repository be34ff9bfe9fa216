"""This module solves ridge regressions that share a design, with every penalty's leave-one-out error.

Source: A. E. Hoerl, R. W. Kennard, Technometrics 12(1), 1970, for ridge; G. H. Golub, M. Heath,
G. Wahba, Technometrics 21(2), 1979, for the leave-one-out identity `e_i / (1 - h_ii)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats

_COIN = 0.25


@dataclass(frozen=True, slots=True)
class Solution:
    """H heads over one design: `y = intercept + (x - centre) @ weight`."""

    centre_F: Floats
    weight_FH: Floats
    intercept_H: Floats
    penalty_H: Floats
    noise_H: Floats
    """Mean squared leave-one-out residual, see `noise_of`."""
    left_out_NH: Floats
    """Leave-one-out prediction of every row."""
    axes_FF: Floats
    """Eigenvectors of the centred Gram matrix, in columns."""
    values_F: Floats
    """Its eigenvalues."""
    num_rows: int


def noise_of(mean_square_H: Floats, num_rows: int | Floats) -> Floats:
    """Return the noise of heads with one best and one worst outcome counted in, as `means_of` does."""
    noise_H: Floats = (mean_square_H * num_rows + 2.0 * _COIN) / (num_rows + 2.0)
    return noise_H


def solve(x_NF: Floats, y_NH: Floats, penalties: Sequence[float]) -> Solution:
    """Fit one head per column of `y_NH` (no NaN) and give each the penalty of least leave-one-out error.

    The intercept is not penalised, so each head's mean prediction is its mean. Cost: one eigenvalue
    decomposition of (F, F), then O(N F) per penalty.
    """
    num_rows = x_NF.shape[0]
    centre_F, intercept_H = x_NF.mean(axis=0), y_NH.mean(axis=0)
    x_NF, y_NH = x_NF - centre_F, y_NH - intercept_H
    values_F, axes_FF = np.linalg.eigh(x_NF.T @ x_NF)
    values_F = np.maximum(values_F, 0.0)
    turned_NF = x_NF @ axes_FF
    moment_FH = turned_NF.T @ y_NH
    squared_NF = turned_NF**2
    best_H = np.full(y_NH.shape[1], np.inf)
    penalty_H = np.full(y_NH.shape[1], float(penalties[0]))
    left_out_NH = np.zeros_like(y_NH)
    for penalty in penalties:
        inverse_F = 1.0 / (values_F + penalty)
        fit_NH = turned_NF @ (inverse_F[:, None] * moment_FH)
        leverage_N = squared_NF @ inverse_F + 1.0 / num_rows
        residual_NH = (y_NH - fit_NH) / np.maximum(1.0 - leverage_N, 1e-9)[:, None]
        error_H = (residual_NH**2).mean(axis=0)
        better_H = error_H < best_H
        best_H = np.where(better_H, error_H, best_H)
        penalty_H = np.where(better_H, penalty, penalty_H)
        left_out_NH[:, better_H] = (y_NH - residual_NH)[:, better_H]
    weight_FH = axes_FF @ (moment_FH / (values_F[:, None] + penalty_H))
    return Solution(
        centre_F,
        weight_FH,
        intercept_H,
        penalty_H,
        noise_of(best_H, num_rows),
        left_out_NH + intercept_H,
        axes_FF,
        values_F,
        num_rows,
    )
