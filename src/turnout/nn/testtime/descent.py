"""This module takes small steps down a gradient, every batch item for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Optimizer = Literal["sgd", "adam"]


class Descent:
    """Plain gradient steps (`sgd`) or Adam's, elementwise, so that items in a batch never meet.

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
