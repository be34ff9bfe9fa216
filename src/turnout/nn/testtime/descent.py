"""This module takes small steps down a gradient, every batch item for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Optimizer = Literal["sgd", "adam"]

NOISE = 2.0**-20
"""Share of an item's largest gradient below which one is what rounding left of zero.

An expert that no token depends on has gradients of 0 in exact arithmetic, and of about 1e-8 of the largest
where the weights of the chosen are a share of a softmax over all; what matters stays above 1e-4.
"""


class Descent:
    """Plain gradient steps (`sgd`) or Adam's, for every item by itself, so that items in a batch never meet.

    Adam takes as large a step for a small gradient as for a large one, so it is not shown what is noise: it
    would move experts that nothing depends on, each time another way.

    Parameters
    ----------
    step_size
        What the gradient (`sgd`) or Adam's direction, which is about 1 a coordinate, is multiplied by.

    Source: Adam: Kingma and Ba, 2015, algorithm 1, with its constants.
    """

    def __init__(self, *, optimizer: Optimizer, step_size: float) -> None:
        self.optimizer = optimizer
        self.step_size = step_size
        self._step = 0
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(
        self,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        weights_BL: Tensor,
    ) -> list[Tensor]:
        """Return the values (one (B, E) per layer) after one step; weights_BL multiply items' steps."""
        self._step += 1
        if self.optimizer == "adam":
            gradients = without_noise(gradients, weights_BL)
        moved = []
        for number, (value_BE, gradient_BE) in enumerate(zip(values, gradients, strict=True)):
            if gradient_BE is None:
                moved.append(value_BE.detach())
                continue
            size_B1 = self.step_size * weights_BL[:, number, None].to(value_BE)
            moved.append(value_BE.detach() - size_B1 * self._direction(number, gradient_BE))
        return moved

    def _direction(self, number: int, gradient_BE: Tensor) -> Tensor:
        if self.optimizer == "sgd":
            return gradient_BE
        zero = torch.zeros_like(gradient_BE)
        first, second = self._moments.get(number, (zero, zero))
        first = 0.9 * first + 0.1 * gradient_BE
        second = 0.999 * second + 0.001 * gradient_BE**2
        self._moments[number] = (first, second)
        rms = (second / (1 - 0.999**self._step)).sqrt()
        return first / (1 - 0.9**self._step) / (rms + 1e-8)


def without_noise(gradients: Sequence[Tensor | None], weights_BL: Tensor) -> list[Tensor | None]:
    """Return gradients, one (B, E) per layer, with 0 where rounding alone tells them from it.

    The largest of an item is sought in the layers that move for it, which are the same when it is alone.
    """
    tops = [
        gradient_BE.abs().amax(dim=1).to(weights_BL.device) * (weights_BL[:, number] > 0)
        for number, gradient_BE in enumerate(gradients)
        if gradient_BE is not None
    ]
    if not tops:
        return list(gradients)
    floor_B1 = NOISE * torch.stack(tops).amax(dim=0)[:, None]
    # What is no number is never below the floor, so that it shows in the loss.
    return [None if g is None else g.masked_fill(g.abs() < floor_B1.to(g.device), 0.0) for g in gradients]
