"""This module fits a distribution over K choices that is log-linear in a vector.

`p(k | x) = softmax_k(b_k + x . w_k)`, fitted by

    min  sum_n [ KL(t_n || p_n) + sum_k c_nk p_nk ] + penalty / 2 sum_k |w_k|^2

with soft targets t and expected costs c. Source: D. R. Cox, "Some procedures connected with the logistic
qualitative response curve", 1966, for the model; the two terms are those of TableDART (S253).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from turnout.core.outcomes import Bools, Floats
from turnout.routers.lbfgs import minimise


@dataclass(frozen=True, slots=True)
class Softmax:
    """The weights of K choices over vectors of length F."""

    weight_FK: Floats
    intercept_K: Floats

    def log_shares(self, x_QF: Floats) -> Floats:
        """Return log p, shape (Q, K)."""
        return log_softmax(x_QF @ self.weight_FK + self.intercept_K)

    def shares(self, x_QF: Floats) -> Floats:
        """Return p, shape (Q, K)."""
        p_QK: Floats = np.exp(self.log_shares(x_QF))
        return p_QK

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights; `softmax_from` reads them back."""
        return {"weight": self.weight_FK, "intercept": self.intercept_K}


def softmax_from(arrays: Mapping[str, np.ndarray]) -> Softmax:
    """Rebuild from `Softmax.arrays`."""
    return Softmax(arrays["weight"], arrays["intercept"])


def fit_softmax(
    x_NF: Floats,
    target_NK: Floats,
    *,
    penalty: float,
    known_NK: Bools | None = None,
    cost_NK: Floats | None = None,
    steps: int = 100,
) -> Softmax:
    """Fit to target distributions; rows of `target_NK` sum to 1, or to the weight of the row.

    Where `known_NK` is false the choice does not take part in its row. Intercepts are not penalised.
    """
    num_features, num_choices = x_NF.shape[1], target_NK.shape[1]
    ones_NG = np.column_stack([x_NF, np.ones(len(x_NF))])
    ridge_G1 = np.append(np.full(num_features, penalty), 0.0)[:, None]
    weight_N1 = target_NK.sum(axis=1, keepdims=True)
    scale = 1.0 / max(float(weight_N1.sum()), 1e-12)

    def loss(theta_GK: Floats) -> tuple[float, Floats]:
        log_NK = log_softmax(ones_NG @ theta_GK, known_NK)
        p_NK = np.exp(log_NK)
        # A choice that does not take part has log-probability minus infinity and target 0.
        log_NK = np.where(p_NK > 0.0, log_NK, -700.0)
        value = -float((target_NK * log_NK).sum()) + 0.5 * float((ridge_G1 * theta_GK**2).sum())
        slope_NK = weight_N1 * p_NK - target_NK
        if cost_NK is not None:
            expected_N1 = (p_NK * cost_NK).sum(axis=1, keepdims=True)
            value += float(expected_N1.sum())
            slope_NK = slope_NK + p_NK * (cost_NK - expected_N1)
        return scale * value, scale * (ones_NG.T @ slope_NK + ridge_G1 * theta_GK)

    theta_GK = minimise(loss, np.zeros((num_features + 1, num_choices)), steps=steps)
    return Softmax(theta_GK[:-1], theta_GK[-1])


def log_softmax(logit_NK: Floats, known_NK: Bools | None = None) -> Floats:
    """Return logits minus their log-sum-exp, row by row; minus infinity where not known."""
    if known_NK is not None:
        logit_NK = np.where(known_NK, logit_NK, -np.inf)
    top_N1 = logit_NK.max(axis=1, keepdims=True, initial=-np.inf)
    shifted_NK = logit_NK - np.where(np.isfinite(top_N1), top_N1, 0.0)
    log_NK: Floats = shifted_NK - np.log(np.maximum(np.exp(shifted_NK).sum(axis=1, keepdims=True), 1e-300))
    return log_NK
