"""This module is a log-linear choice among actions, with the exact gradient of its log-probabilities.

The logit of action a is `weights_AD[a] @ state_D + shared_K @ action_AK[a]`: one row of weights per action,
and weights that all actions share. With one-hot e_a and probabilities pi over the actions that are allowed,

    d log pi(a) / d weights_AD = (e_a - pi) state_D^T
    d log pi(a) / d shared_K   = action_AK[a] - pi @ action_AK

and for the entropy H = -sum pi log pi, dH / d logits = -pi (log pi + H).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from turnout.core.outcomes import Bools, Floats


class Situation(NamedTuple):
    """What a choice is made from."""

    state_D: Floats
    """Features of the task so far."""
    action_AK: Floats
    """Features of every action."""
    allowed_A: Bools
    """Which actions may be taken; at least one."""


@dataclass(slots=True)
class Weights:
    """Parameters, or a gradient of the same shapes."""

    weights_AD: Floats
    shared_K: Floats

    @classmethod
    def zeros(cls, num_actions: int, num_state: int, num_shared: int) -> Weights:
        """Return weights under which every allowed action is equally likely."""
        return cls(np.zeros((num_actions, num_state)), np.zeros(num_shared))


def log_probabilities(weights: Weights, situation: Situation) -> Floats:
    """Return log pi, shape (A,); minus infinity where an action is not allowed."""
    logit_A: Floats = weights.weights_AD @ situation.state_D + situation.action_AK @ weights.shared_K
    logit_A[~situation.allowed_A] = -np.inf
    logit_A -= logit_A.max()
    logit_A -= math.log(np.exp(logit_A).sum())
    return logit_A


def sum_gradient(
    weights: Weights,
    situations: Sequence[Situation],
    actions: Sequence[int],
    scales: Sequence[float],
    *,
    entropy: float,
) -> Weights:
    """Return the gradient of `sum_n scales[n] log pi(actions[n]) + entropy * sum_n H_n`, N choices."""
    state_ND = np.stack([situation.state_D for situation in situations])
    action_NAK = np.stack([situation.action_AK for situation in situations])
    allowed_NA = np.stack([situation.allowed_A for situation in situations])
    logit_NA = state_ND @ weights.weights_AD.T + action_NAK @ weights.shared_K
    logit_NA = np.where(allowed_NA, logit_NA, -np.inf)
    shifted_NA = logit_NA - logit_NA.max(axis=1, keepdims=True)
    log_NA = shifted_NA - np.log(np.exp(shifted_NA).sum(axis=1, keepdims=True))
    pi_NA = np.exp(log_NA)
    scale_N = np.asarray(scales)
    slope_NA = -scale_N[:, None] * pi_NA
    slope_NA[np.arange(len(slope_NA)), actions] += scale_N
    if entropy:
        plogp_NA = pi_NA * np.where(allowed_NA, log_NA, 0.0)
        slope_NA -= entropy * (plogp_NA - pi_NA * plogp_NA.sum(axis=1, keepdims=True))
    return Weights(slope_NA.T @ state_ND, np.einsum("na,nak->k", slope_NA, action_NAK))


class Adam:
    """Gradient ascent with the step sizes of Adam (D. P. Kingma and J. Ba, ICLR 2015, algorithm 1)."""

    def __init__(self, step: float, *, decay: tuple[float, float] = (0.9, 0.999)) -> None:
        self.step = step
        self.decay = decay
        self._count = 0
        self._moments: list[tuple[Floats, Floats]] = []

    def ascend(self, weights: Weights, gradient: Weights) -> None:
        """Move `weights` along `gradient`, in place."""
        pairs = [(weights.weights_AD, gradient.weights_AD), (weights.shared_K, gradient.shared_K)]
        if not self._moments:
            self._moments = [(np.zeros_like(value), np.zeros_like(value)) for value, _ in pairs]
        self._count += 1
        first, second = self.decay
        for (value, slope), (mean, square) in zip(pairs, self._moments, strict=True):
            mean += (1 - first) * (slope - mean)
            square += (1 - second) * (slope**2 - square)
            unbiased = mean / (1 - first**self._count)
            scale = np.sqrt(square / (1 - second**self._count)) + 1e-8
            value += self.step * unbiased / scale
