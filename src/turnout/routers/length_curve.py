"""This module predicts how many tokens an answer takes, and how many of them a budget lets through.

`E min(T, b)` with `log T = mu(x) + r`: mu is a ridge head per family of candidates, r its left-out residuals,
kept as quantiles, so no shape is assumed for them. The expectation rises with b, ever less
steep, and is never above b.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Bools, Floats, Ints
from turnout.routers.least_squares import solve

_NUM_QUANTILES = 25


@dataclass(frozen=True, slots=True)
class LengthCurve:
    """Lengths of the answers of G families; NaN where no length was recorded."""

    centre_GF: Floats
    weight_GF: Floats
    intercept_G: Floats
    residual_GK: Floats
    """Quantiles of the left-out residuals of log tokens."""

    def expected_tokens(self, x_QF: np.ndarray, family_B: np.ndarray, budget_B: Floats) -> Floats:
        """Return E min(T, b), shape (Q, B), for B pairs of a family and a budget in tokens."""
        used, place_B = np.unique(family_B, return_inverse=True)
        x_QF = np.asarray(x_QF, np.float64)
        away_QU = x_QF @ self.weight_GF[used].T - (self.centre_GF[used] * self.weight_GF[used]).sum(axis=1)
        # A text of which nothing is known is read as the mean.
        away_QU[np.count_nonzero(x_QF, axis=1) == 0] = 0.0
        tokens_QUK = np.exp((away_QU + self.intercept_G[used])[:, :, None] + self.residual_GK[used])
        capped_QBK = np.minimum(tokens_QUK[:, place_B], budget_B[:, None])
        expected_QB: Floats = capped_QBK.mean(axis=2)
        return expected_QB

    def with_added(self, other: LengthCurve) -> LengthCurve:
        """Return these families, then the other's."""
        pairs = zip(self.arrays().values(), other.arrays().values(), strict=True)
        return LengthCurve(*(np.concatenate(pair) for pair in pairs))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name; `length_curve_from` reads it back."""
        return {
            "length.centre": self.centre_GF,
            "length.weight": self.weight_GF,
            "length.intercept": self.intercept_G,
            "length.residual": self.residual_GK,
        }


def length_curve_from(arrays: Mapping[str, np.ndarray]) -> LengthCurve:
    """Rebuild from `LengthCurve.arrays`."""
    return LengthCurve(*(arrays[f"length.{n}"] for n in ("centre", "weight", "intercept", "residual")))


def learn_length_curve(x_NF: Floats, tokens_NG: Floats, penalties: Sequence[float]) -> LengthCurve:
    """Fit the lengths of G families, each on the rows where its length (NaN if not) is known."""
    num_features, num_families = x_NF.shape[1], tokens_NG.shape[1]
    centre_GF, weight_GF = np.zeros((num_families, num_features)), np.zeros((num_families, num_features))
    intercept_G = np.full(num_families, np.nan)
    residual_GK = np.full((num_families, _NUM_QUANTILES), np.nan)
    levels_K = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    for known_N, family in columns_by_rows(tokens_NG):
        log_NH = np.log(np.maximum(tokens_NG[np.ix_(known_N, family)], 1e-3))
        found = solve(x_NF[known_N], log_NH, penalties)
        centre_GF[family], weight_GF[family] = found.centre_F, found.weight_FH.T
        intercept_G[family] = found.intercept_H
        residual_GK[family] = np.quantile(log_NH - found.left_out_NH, levels_K, axis=0).T
    return LengthCurve(centre_GF, weight_GF, intercept_G, residual_GK)


def columns_by_rows(value_NC: Floats) -> Iterator[tuple[Bools, Ints]]:
    """Yield sets of rows, shape (N,), and the columns known on exactly those; empty columns are left out."""
    is_known_NC = np.isfinite(value_NC)
    members: dict[bytes, list[int]] = {}
    for column in np.flatnonzero(is_known_NC.any(axis=0)).tolist():
        members.setdefault(is_known_NC[:, column].tobytes(), []).append(column)
    for columns in members.values():
        yield is_known_NC[:, columns[0]], np.array(columns, np.int64)
