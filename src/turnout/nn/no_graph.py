"""This module refuses what a pass without gradients left, where somebody means to learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence


def no_graph(what: str) -> InputError:
    """Return the error for losses or a state that have no gradients."""
    return InputError(
        sentence(
            what,
            allowed="a forward pass that records gradients",
            got="one under torch.no_grad, as reentrant checkpointing makes it",
            do="checkpoint with use_reentrant=False, or read it under torch.no_grad too",
        )
    )


class LossesWithoutGraph(Mapping[str, Tensor]):
    """Losses of a pass without gradients, read under `torch.no_grad`; refused where gradients are recorded.

    There they would be added to a loss and teach nothing.
    """

    def __init__(self, losses: Mapping[str, Tensor]) -> None:
        self._losses = losses

    def __getitem__(self, name: str) -> Tensor:
        loss = self._losses[name]
        if torch.is_grad_enabled():
            raise no_graph(f"losses {', '.join(sorted(self))} of the gate")
        return loss

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)
