"""This module holds what rewiring found and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What one optimisation on a context found.

    `deltas` hold one (B, E) per mixture-of-experts layer; `loss_SB` the context's loss before each step, in
    nats a token; `confidence_BL` the paper's C (NaN where nothing depended on it); `weights_BL` by what each
    item's step in each layer was multiplied; `seconds` the wall-clock; `flops` what was executed, None if not
    counted.
    """

    deltas: tuple[Tensor, ...]
    loss_SB: Tensor
    confidence_BL: Tensor
    weights_BL: Tensor
    seconds: float
    flops: int | None


@dataclass(frozen=True, kw_only=True)
class Rewired:
    """What `Rewiring.generate` returns.

    `sequences_BT` hold prompts and answers, `attention_mask_BT` what is text in them (padding is 0, also
    after an end token); `rounds` one `Adaptation` per segment, `items` the batch items each was about. FLOPs
    are None if not counted.
    """

    sequences_BT: Tensor
    attention_mask_BT: Tensor
    rounds: Sequence[Adaptation]
    items: Sequence[tuple[int, ...]]
    generating_s: float
    generating_flops: int | None

    @property
    def adapting_s(self) -> float:
        """Seconds spent on optimising."""
        return sum(found.seconds for found in self.rounds)

    @property
    def adapting_flops(self) -> int | None:
        """FLOPs spent on optimising; None if not counted."""
        counts = [found.flops for found in self.rounds]
        return None if None in counts else sum(count for count in counts if count is not None)
