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


def check_blocks_alone(model: nn.Module) -> None:
    """Raise `InputError` for a decoder whose blocks hand each other more than hidden states.

    Blocks that attend to the keys of an earlier one (Gemma 3n, Gemma 4), or that read several streams of
    hidden states side by side (Gemma 3n), cannot be left out one by one.
    """
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    for name, most, why in (
        ("num_kv_shared_layers", 0, "blocks attend to keys that an earlier block made"),
        ("altup_num_inputs", 1, "blocks read several streams of hidden states"),
    ):
        got = getattr(config, name, None) or 0
        if got > most:
            what = f"{type(model).__name__}: {why}, so none can be left out"
            raise InputError(sentence(what, allowed=f"{name} of at most {most}", got=got))


def freeze(model: nn.Module) -> None:
    """Take every parameter of a model out of training."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
