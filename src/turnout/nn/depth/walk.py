"""This module lets a decoder walk through its blocks with less around each of them.

A decoder's forward takes its blocks from a `ModuleList`: a slice of it is built anew in every forward, and
every block is called through the machinery of modules, whether it is skipped or not. Where nothing is left to
decide, and nobody has hung a hook on a block or put another forward in, a plain list does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules

from turnout.nn.depth.blocks import RoutedBlock

hooks_of_all: Any = modules._has_any_global_hook
"""Whether somebody has hung a hook on all modules."""


class Step:
    """Stands in for a block in the decoder's loop, and is the block in everything but its call."""

    def __init__(self, stand_in: RoutedBlock) -> None:
        self.block = stand_in.block
        self.stand_in = stand_in
        self.is_called_plainly = type(stand_in.block).__call__ is nn.Module.__call__

    def __getattr__(self, name: str) -> Any:
        """Return the block's attribute, such as the kind of mask that it wants."""
        if name.startswith("__") or "block" not in vars(self):
            raise AttributeError(name)
        return getattr(self.block, name)

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the block returns: from its stand-in where the block's own call would do that alone."""
        # Here and not before the forward, in which the library may hang hooks of its own on the blocks.
        if self.is_called_plainly and not self._is_changed():
            return self.stand_in.go_on(hidden_states, args, kwargs)
        output: Tensor = self.block(hidden_states, *args, **kwargs)
        return output

    def _is_changed(self) -> bool:
        """Whether a call of the block does more than its stand-in, or something else."""
        own = vars(self.block)
        return bool(
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or own.get("_compiled_call_impl")
            or own.get("forward") is not self.stand_in
        )


class Walk:
    """Puts steps into the place of a decoder's list of blocks, for one forward."""

    def __init__(self, *, owner: nn.Module, name: str, blocks: Sequence[RoutedBlock]) -> None:
        self.owner = owner
        self.name = name
        self.steps = [Step(stand_in) for stand_in in blocks]
        self._blocks = [step.block for step in self.steps]

    def begin(self) -> None:
        """From now on the decoder finds steps, if its blocks are those that are stood in for."""
        blocks: Any = self.owner._modules[self.name]
        if list(blocks) == self._blocks and not hooks_of_all():
            # An attribute of the object itself is found before the module that is registered under its name.
            vars(self.owner)[self.name] = self.steps

    def end(self) -> None:
        """Give the decoder its own list back."""
        vars(self.owner).pop(self.name, None)
