"""This module gives every sequence the same depth: the control that any learned router must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from turnout.nn.depth.contract import EXECUTE, SKIP, DepthRouter, check_counts, check_layer, check_layers


class FixedDepth(DepthRouter):
    """Calls block l `counts[l]` times, for every sequence.

    Parameters
    ----------
    counts
        One of 0 (skip), 1 (execute), 2 (repeat) for each block.

    Raises `InputError` for other values.
    """

    def __init__(self, *, counts: Sequence[int]) -> None:
        super().__init__()
        self.layers = check_layers("FixedDepth", len(counts))
        self.counts = tuple(check_counts("FixedDepth", list(counts), self.layers)[0].tolist())

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        """Return the block's count for every sequence."""
        count = self.counts[check_layer("FixedDepth", layer, self.layers)]
        return torch.full((len(hidden_BTD),), count, device=hidden_BTD.device)

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"counts": list(self.counts)}


def skipping(layers: int, skipped: Sequence[int]) -> FixedDepth:
    """Return the router that skips the blocks `skipped`; raises `InputError` for one that there is not."""
    for layer in skipped:
        check_layer("skipping", layer, check_layers("skipping", layers))
    return FixedDepth(counts=[SKIP if layer in skipped else EXECUTE for layer in range(layers)])
