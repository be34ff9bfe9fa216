"""This module minimises losses by gradient descent in minibatches, stopped where held-out rows say so.

Source: D. P. Kingma, J. Ba, "Adam", ICLR 2015, algorithm 1; I. Loshchilov, F. Hutter, "Decoupled weight
decay regularization", ICLR 2019, algorithm 2; L. Prechelt, "Early stopping - but when?", 1998.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from turnout.core.outcomes import Ints
from turnout.routers.neighbours import Array

Real = npt.NDArray[np.floating[Any]]
"""An array in single precision, or in double, which the tests of gradients need."""
AnyReal = TypeVar("AnyReal", bound=Real)
Parameters = Mapping[str, Real]
Loss = Callable[[Parameters, Ints], tuple[float, Mapping[str, Real]]]
"""Parameters and row numbers in; the mean loss over those rows and its gradient out."""

_HELD_OUT = 0.1
_MIN_HELD_OUT, _MAX_HELD_OUT = 5, 2_000
_EVERY = 20
_PATIENCE = 5


@dataclass(frozen=True, slots=True)
class Adam:
    """How to descend."""

    num_steps: int = 400
    batch_size: int = 512
    rate: float = 0.01
    decay: float = 0.0
    """Weight decay per step, in units of the rate."""

    def run(self, start: Parameters, loss: Loss, num_rows: int, rng: np.random.Generator) -> dict[str, Array]:
        """Return the parameters of least loss on held-out rows; those of the start may be the best.

        A tenth of the rows is held out. With too few rows for that, all of them are learned and the last
        step counts.
        """
        order = rng.permutation(num_rows)
        num_out = min(int(_HELD_OUT * num_rows), _MAX_HELD_OUT)
        num_out = num_out if num_out >= _MIN_HELD_OUT else 0
        held_out, rows = np.sort(order[:num_out]), order[num_out:]
        point = {name: array.copy() for name, array in start.items()}
        first: dict[str, Real] = {name: np.zeros_like(array) for name, array in start.items()}
        second: dict[str, Real] = {name: np.zeros_like(array) for name, array in start.items()}
        best, best_loss, num_worse = dict(start), np.inf, 0
        if num_out:
            best_loss = loss(point, held_out)[0]
        for step in range(1, self.num_steps + 1):
            batch = rows if rows.size <= self.batch_size else rng.choice(rows, self.batch_size, replace=False)
            gradient = loss(point, np.sort(batch))[1]
            self._step(point, gradient, first, second, step)
            if num_out and step % _EVERY == 0:
                found = loss(point, held_out)[0]
                num_worse = 0 if found < best_loss else num_worse + 1
                if found < best_loss:
                    best, best_loss = {name: array.copy() for name, array in point.items()}, found
                if num_worse == _PATIENCE:
                    break
        return best if num_out else point

    def _step(
        self,
        point: dict[str, Array],
        gradient: Parameters,
        first: dict[str, Real],
        second: dict[str, Real],
        step: int,
    ) -> None:
        # The rate falls to zero along a cosine, so that the last steps settle.
        rate = self.rate * 0.5 * (1.0 + np.cos(np.pi * (step - 1) / self.num_steps))
        for name, slope in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * np.square(slope)
            mean = first[name] / (1.0 - 0.9**step)
            size = np.sqrt(second[name] / (1.0 - 0.999**step)) + 1e-8
            moved = point[name] - rate * (mean / size + self.decay * point[name])
            point[name] = moved.astype(np.float32)


def sigmoid(z: AnyReal) -> AnyReal:
    """Return `1 / (1 + exp(-z))` without overflow."""
    half: Real = 0.5 * (1.0 + np.tanh(0.5 * z))
    return cast(AnyReal, half)


def softmax(z_NK: AnyReal) -> AnyReal:
    """Return the softmax of each row."""
    grown_NK = np.exp(z_NK - z_NK.max(axis=1, keepdims=True))
    shares_NK: Real = grown_NK / grown_NK.sum(axis=1, keepdims=True)
    return cast(AnyReal, shares_NK)


def log_loss(p_NM: AnyReal, truth_NM: Real, known_NM: Real) -> tuple[float, AnyReal]:
    """Return the mean log loss of probabilities over known cells, and its gradient by p.

    A truth in [0, 1] counts as that share of right answers. `known_NM` is 1 or 0.
    """
    inside_NM: Any = np.clip(p_NM, 1e-6, 1.0 - 1e-6)
    num = max(float(known_NM.sum()), 1.0)
    loss_NM = -(truth_NM * np.log(inside_NM) + (1.0 - truth_NM) * np.log1p(-inside_NM)) * known_NM
    slope_NM = (inside_NM - truth_NM) / (inside_NM * (1.0 - inside_NM)) * known_NM / num
    return float(loss_NM.sum()) / num, slope_NM.astype(p_NM.dtype)
