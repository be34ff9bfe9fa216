"""This module trains a base while its blocks are left out by chance, so that a block can be missed later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnout.core.progress import Progress, silent
from turnout.core.validation import check_number
from turnout.nn.depth.contract import DepthRouter
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.tiny import Batch, train


def train_dropping(
    routed: RoutedDepth,
    draw: Callable[[], Batch],
    *,
    drop: float,
    rng: np.random.Generator,
    steps: int,
    lr: float = 1e-3,
    progress: Progress = silent,
) -> list[float]:
    """Train the base on batches from `draw` as `tiny.train` does; return the loss of every step.

    Each block is left out with probability `drop`, drawn from `rng` for each row and step anew. A base that
    never missed a block answers little without one, so that there is no shorter path for a search to find.
    The wrapper has its router back afterwards. Raises `InputError` for a `drop` outside [0, 1).
    """
    check_number("train_dropping: drop", drop, low=0.0, high=1.0, allow_high=False)
    before = routed.router
    routed.set_router(_Dropping(layers=routed.layers, drop=drop, rng=rng))
    try:
        return train(routed.model, draw, steps=steps, lr=lr, progress=progress)
    finally:
        routed.set_router(before)


class _Dropping(DepthRouter):
    """Leaves out each block by itself; unlike `RandomSkip`, a prompt is not treated the same again."""

    def __init__(self, *, layers: int, drop: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.layers, self.drop, self.rng = layers, drop, rng

    def plan(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        kept_BL = self.rng.random((len(hidden_BTD), self.layers)) >= self.drop
        return torch.from_numpy(kept_BL.astype(np.int64))

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        assert isinstance(plan, Tensor)
        return plan[:, layer].to(hidden_BTD.device)

    def config(self) -> dict[str, Any]:
        return {"layers": self.layers, "drop": self.drop}
