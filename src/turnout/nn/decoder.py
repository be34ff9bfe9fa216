"""This module finds the parts of a `transformers` decoder by what they are, not by a family's name."""

from __future__ import annotations

from typing import Any

from torch import nn

from turnout.core.errors import InputError, sentence


def decoder_blocks(model: nn.Module) -> tuple[nn.Module, str]:
    """Return (owner, name) of the module list that holds the decoder's blocks.

    The blocks are the longest `ModuleList` whose entries all hold a `self_attn`, looked for in the model's
    own `get_decoder()` where it has one: an encoder of images beside it may be deeper. Raises `InputError`
    for a model without one, and for one that reads its prompt by an encoder.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InputError(
            sentence(
                f"{type(model).__name__} reads its prompt by an encoder",
                allowed="a model that is a decoder alone",
            )
        )
    get_decoder: Any = getattr(model, "get_decoder", lambda: None)
    decoder = get_decoder()
    found = _longest(decoder) if isinstance(decoder, nn.Module) else None
    found = found or _longest(model)
    if found is None:
        raise InputError(
            sentence(
                f"{type(model).__name__} has no decoder blocks",
                allowed="a model with a ModuleList of blocks that hold `self_attn`",
            )
        )
    return found


def _longest(model: nn.Module) -> tuple[nn.Module, str] | None:
    best: tuple[nn.Module, str] | None = None
    length = 0
    for owner in model.modules():
        for name, child in owner.named_children():
            if not isinstance(child, nn.ModuleList) or len(child) <= length:
                continue
            if all(hasattr(block, "self_attn") for block in child):
                best, length = (owner, name), len(child)
    return best


def freeze(model: nn.Module) -> None:
    """Take every parameter of a model out of training."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
