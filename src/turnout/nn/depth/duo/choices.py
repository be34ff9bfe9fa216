"""This module names the modules that a token may take in a feed-forward, and checks such choices.

Letters here: A choices per layer, P trials (rows of an oracle's question); B, T, L as everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence

SMALL, BIG, SKIP = 0, 1, 2
"""The narrow feed-forward, the base model's own, and nothing (the residual alone)."""

NAMES = ("small", "big", "skip")


def num_choices(allow_skip: bool) -> int:
    """Return A: 3 with skip, 2 without."""
    return 3 if allow_skip else 2


def check_choice(choice: object, *, num_layers: int, allow_skip: bool) -> Tensor:
    """Return a choice as int64 with three axes, (B or 1, T or 1, L).

    `choice` holds whole numbers and has the shape (L,): one pattern for all; (B, L): one a sequence; or
    (B, T, L): one a token, where T counts columns with padding. Raises `InputError` for a value that names
    no module here, `ShapeError` for another shape.
    """
    try:
        given = torch.as_tensor(choice)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            sentence("duo: choice", allowed="whole numbers of equally long rows", got=str(error))
        ) from error
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise InputError(sentence("duo: choice", allowed="whole numbers", got=str(given.dtype)))
    if given.dim() not in (1, 2, 3) or given.shape[-1] != num_layers or not given.numel():
        allowed = f"(L,), (B, L) or (B, T, L) with L = {num_layers}"
        raise ShapeError(sentence("duo: choice", allowed=allowed, got=tuple(given.shape)))
    highest = num_choices(allow_skip) - 1
    low, high = int(given.min()), int(given.max())
    if low < 0 or high > highest:
        allowed = ", ".join(f"{i} ({NAMES[i]})" for i in range(highest + 1))
        got = low if low < 0 else high
        do = None if allow_skip or got != SKIP else "build DuoModel with allow_skip=True to skip"
        raise InputError(sentence("duo: choice", allowed=allowed, got=got, do=do))
    if given.dim() == 1:
        given = given[None]
    return (given[:, None] if given.dim() == 2 else given).long()
