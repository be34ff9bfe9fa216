"""This module skips blocks by chance: what a saving costs when nobody thinks about it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.contract import DepthRouter, check_layers


class RandomSkip(DepthRouter):
    """Executes `executed` of the blocks, drawn evenly for each sequence.

    The draw is a function of the seed and of the prompt's own tokens: the order of a batch, its padding and
    reading the prompt again change nothing.

    Parameters
    ----------
    layers
        Blocks of the base.
    executed
        Blocks that a sequence passes through, a mean: 4.25 gives a quarter of the prompts 5 and the rest 4.
    seed
        Of the draws.

    Raises `InputError` for a budget outside [0, layers].
    """

    def __init__(self, *, layers: int, executed: float, seed: int = 0) -> None:
        super().__init__()
        self.layers = check_layers("RandomSkip", layers)
        if not 0 <= executed <= layers:
            raise InputError(sentence("RandomSkip: executed", allowed=f"0 to {layers} layers", got=executed))
        self.executed, self.seed = float(executed), seed

    def plan(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Return counts_BL, drawn anew for each prompt."""
        prompts = zip(hidden_BTD.detach().float().cpu(), mask_BT.cpu(), strict=True)
        return torch.tensor([self._draw(hidden_TD[mask_T]) for hidden_TD, mask_T in prompts])

    def _draw(self, tokens_TD: Tensor) -> list[int]:
        rng = np.random.default_rng([self.seed, zlib.crc32(tokens_TD.numpy().tobytes())])
        whole = int(self.executed)
        kept = whole + int(rng.random() < self.executed - whole)
        counts_L = np.zeros(self.layers, dtype=np.int64)
        counts_L[rng.permutation(self.layers)[:kept]] = 1
        found: list[int] = counts_L.tolist()
        return found

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        """Return the block's counts of the plan."""
        if not isinstance(plan, Tensor):
            raise InputError(sentence("RandomSkip.decide: plan", allowed="what `plan` returned", got=plan))
        return plan[:, layer].to(hidden_BTD.device)

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"layers": self.layers, "executed": self.executed, "seed": self.seed}
