"""This module warns where a training loop steps a model and leaves the gates out that stand in it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable

import torch
from torch import nn

from turnout.core.errors import sentence


class LeftOut(UserWarning):
    """An optimiser steps a model, and none steps the gates that were put into it."""


class LeftOutWatch:
    """Looks before each pass in training whether what gathers gradients is stepped too; warns once.

    An optimiser changes parameters in place, which torch counts for each of them.
    """

    def __init__(self, model: nn.Module, gates: nn.Module) -> None:
        self._model, self._gates = model, gates
        self._seen: tuple[int, int] | None = None
        self._is_over = False

    def look(self) -> None:
        """Warn if the model was stepped since the first look, and gates with gradients were not."""
        if self._is_over or not self._model.training or not torch.is_grad_enabled():
            return
        own = [gate for gate in self._gates.parameters() if gate.requires_grad and not gate.is_inference()]
        trained = (p for p in self._model.parameters() if p.requires_grad and not p.is_inference())
        now = _changes(itertools.islice(trained, 1)), _changes(own)
        before, self._seen = self._seen, self._seen or now
        if before is None or (now[0] == before[0] and now[1] == before[1]):
            return
        self._is_over = now[1] != before[1]
        if not self._is_over and any(parameter.grad is not None for parameter in own):
            self._is_over = True
            warnings.warn(
                sentence(
                    "an optimiser steps the model and leaves the gates of its GateSwap out",
                    allowed="an optimiser of swap.parameters() too",
                    do="add them, as docs/gates.md shows for the Trainer, or freeze them",
                ),
                LeftOut,
                stacklevel=2,
            )


def _changes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter._version for parameter in parameters)
