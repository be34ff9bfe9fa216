"""This module states what a depth router is: how often does each sequence pass through each block?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, ShapeError, sentence

SKIP, EXECUTE, REPEAT = 0, 1, 2
"""How often a block is called for a sequence: `h`, `f(h)`, `f(f(h))`."""

MOST_CALLS = REPEAT


class DepthRouter(nn.Module, ABC):
    """Decides per block and per sequence, from the prompt alone, while the prompt is read.

    `layers` is the number of blocks it was made for; `width` is the size of the hidden state it reads, or
    None where it reads none. `plan` is called once per prompt, at the first block; what it returns is handed
    to every `decide` of that prompt.
    """

    layers: int
    width: int | None = None

    def plan(self, hidden_BTD: Tensor, mask_BT: Tensor) -> object:
        """Return what is the same for all blocks of a prompt; `hidden_BTD` is the first block's input."""
        return None

    @abstractmethod
    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        """Return counts_B, integers in {0 skip, 1 execute, 2 repeat}, for block `layer`.

        `hidden_BTD` is the block's input and `mask_BT` is true at tokens of the prompt, false at padding.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as JSON can hold them."""


def check_layers(where: str, value: object) -> int:
    """Return `value` if it is a number of blocks, at least 1; raises `InputError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(sentence(f"{where}: layers", allowed="an integer of at least 1", got=value))
    return value


def check_counts(where: str, counts: Any, layers: int) -> Tensor:
    """Return `counts` as int64 counts_BL (a single row may be given as counts_L).

    Raises `ShapeError` for another number of layers than the model has and `InputError` for other values than
    0, 1 and 2.
    """
    try:
        counts_BL = torch.as_tensor(counts)
    except (TypeError, ValueError, RuntimeError) as error:
        allowed = f"numbers [B, L] or [L] with L={layers}, rows of one length"
        raise InputError(sentence(f"{where}: counts", allowed=allowed, got=counts)) from error
    if counts_BL.dim() == 1:
        counts_BL = counts_BL[None]
    if counts_BL.dim() != 2 or counts_BL.shape[1] != layers or not len(counts_BL):
        raise ShapeError(
            sentence(
                f"{where}: one count for each block",
                allowed=f"[B, L] or [L] with L={layers}, so layers 0 to {layers - 1}",
                got=tuple(counts_BL.shape),
            )
        )
    whole_BL = counts_BL.to(torch.int64)
    if bool((whole_BL != counts_BL).any()) or int(whole_BL.min()) < 0 or int(whole_BL.max()) > MOST_CALLS:
        raise InputError(
            sentence(
                f"{where}: counts",
                allowed="0 (skip), 1 (execute) and 2 (repeat)",
                got=sorted(set(counts_BL.flatten().tolist())),
            )
        )
    return whole_BL


def check_layer(where: str, layer: object, layers: int) -> int:
    """Return `layer` if the model has it; raises `InputError`."""
    if not isinstance(layer, int) or not 0 <= layer < layers:
        raise InputError(
            sentence(f"{where}: there is no such layer", allowed=f"0 to {layers - 1}", got=layer)
        )
    return layer
