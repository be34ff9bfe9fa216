"""This module fits many heads whose rows all differ through one decomposition of all rows.

A head that was observed on n of N rows needs the Gram matrix of its own rows, and so a decomposition of its
own: ten thousand candidates with holes would take as many, and hold them. Of rows that miss at random the
Gram matrix is about n / N of that of all rows, with which a head is

    w = (n / N X'X + penalty)^-1 X_o' (y_o - mean(y_o)),

so that all heads share the eigenvectors of X'X. Where nothing is missing that is ridge regression itself. The
matrix does not depend on outcomes, so a row is left out by taking it from the sum alone:
`y_i - y_i^(-i) = (1 + h_i) (y_i - mean) - fit_i`, with h_i the row's leverage.

Source: A. E. Hoerl, R. W. Kennard, Technometrics 12(1), 1970, for ridge; D. G. Horvitz, D. J. Thompson,
JASA 47, 1952, for sums over a sample that stand for sums over all. Their meeting is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Floats, Ints
from turnout.routers.least_squares import noise_of

_BLOCK = 1_024
"""Heads that are solved at a time; bounds memory."""

Singles = np.ndarray
"""Single precision: what is summed here is noisier than its rounding."""


@dataclass(frozen=True, slots=True)
class Design:
    """N rows in the axes of their Gram matrix."""

    centre_F: Floats
    axes_FF: Floats
    values_F: Floats
    turned_NF: Singles
    squared_NF: Singles


@dataclass(frozen=True, slots=True)
class Shared:
    """H heads over one design, as `least_squares.Solution` has them, each in units of all N rows."""

    weight_FH: Floats
    intercept_H: Floats
    penalty_H: Floats
    """The penalty that all rows would need, N / n of the head's own."""
    noise_H: Floats
    """N / n of the head's own noise: divided by N and by the values of all rows it is the head's error."""
    left_out_NH: Singles
    """Leave-one-out prediction of every row that was observed."""


def design_of(x_NF: Floats) -> Design:
    """Decompose the centred Gram matrix of all rows."""
    centre_F = x_NF.mean(axis=0)
    values_F, axes_FF = np.linalg.eigh((x_NF - centre_F).T @ (x_NF - centre_F))
    turned_NF = ((x_NF - centre_F) @ axes_FF).astype(np.float32)
    return Design(centre_F, axes_FF, np.maximum(values_F, 0.0), turned_NF, turned_NF**2)


def blocks(num: int) -> list[Ints]:
    """Return the positions of heads that are solved together."""
    return [np.arange(low, min(low + _BLOCK, num)) for low in range(0, num, _BLOCK)]


def solve_shared(design: Design, y_NH: Floats, penalties: Sequence[float]) -> Shared:
    """Fit one head per column of `y_NH`, NaN where not observed, each with its penalty of least error."""
    known_NH = np.isfinite(y_NH)
    num_H = known_NH.sum(axis=0).astype(np.float64)
    intercept_H = np.where(known_NH, y_NH, 0.0).sum(axis=0) / num_H
    off_NH = np.where(known_NH, y_NH - intercept_H, 0.0).astype(np.float32)
    share_H = num_H / len(y_NH)
    moment_FH = (design.turned_NF.T @ off_NH).astype(np.float64)
    best_H, penalty_H = np.full(num_H.size, np.inf), np.full(num_H.size, float(penalties[0]))
    left_out_NH = np.zeros_like(off_NH)
    for penalty in penalties:
        residual_NH = _left_out(design, off_NH, known_NH, moment_FH, (num_H, penalty))
        error_H = np.square(residual_NH).sum(axis=0, dtype=np.float64) / num_H
        better_H = error_H < best_H
        best_H = np.where(better_H, error_H, best_H)
        penalty_H = np.where(better_H, penalty, penalty_H)
        left_out_NH[:, better_H] = (off_NH - residual_NH)[:, better_H]
    scaled_FH = design.values_F[:, None] * share_H + penalty_H
    return Shared(
        design.axes_FF @ (moment_FH / scaled_FH),
        intercept_H,
        penalty_H / share_H,
        noise_of(best_H, num_H) / share_H,
        left_out_NH + intercept_H.astype(np.float32),
    )


def _left_out(
    design: Design, off_NH: Singles, known_NH: np.ndarray, moment_FH: Floats, choice: tuple[Floats, float]
) -> Singles:
    """Return leave-one-out residuals, 0 where not observed; `choice` is the heads' rows and a penalty."""
    num_H, penalty = choice
    share_H = num_H / len(off_NH)
    weight_FH = moment_FH / (design.values_F[:, None] * share_H + penalty)
    fit_NH = design.turned_NF @ weight_FH.astype(np.float32)
    # The leverage depends on a head through its number of rows alone.
    num_K, place_H = np.unique(num_H, return_inverse=True)
    inverse_FK = 1.0 / (design.values_F[:, None] * (num_K / len(off_NH)) + penalty)
    leverage_NK = design.squared_NF @ inverse_FK.astype(np.float32)
    leverage_NK += (1.0 / np.maximum(num_K - 1.0, 1.0)).astype(np.float32)
    residual_NH = off_NH * (1.0 + leverage_NK[:, place_H]) - fit_NH
    return np.asarray(residual_NH * known_NH)
