"""This module finds the parts of a `transformers` decoder by what they are, not by a family's name."""

from __future__ import annotations

from torch import nn

from turnout.core.errors import InputError, sentence


def decoder_blocks(model: nn.Module) -> tuple[nn.Module, str]:
    """Return (owner, name) of the module list that holds the decoder's blocks.

    The blocks are the longest `ModuleList` whose entries all hold a `self_attn`. Raises `InputError` for a
    model without one.
    """
    best: tuple[nn.Module, str] | None = None
    length = 0
    for owner in model.modules():
        for name, child in owner.named_children():
            if not isinstance(child, nn.ModuleList) or len(child) <= length:
                continue
            if all(hasattr(block, "self_attn") for block in child):
                best, length = (owner, name), len(child)
    if best is None:
        raise InputError(
            sentence(
                f"{type(model).__name__} has no decoder blocks",
                allowed="a model with a ModuleList of blocks that hold `self_attn`",
            )
        )
    return best


def freeze(model: nn.Module) -> None:
    """Take every parameter of a model out of training."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
