"""This module runs every module on its own tokens alone, so that what is not chosen costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def execute(x_BTD: Tensor, choice_BT: Tensor, modules: Sequence[nn.Module | None]) -> Tensor:
    """Return for every token what its chosen module makes of it, shape (B, T, D).

    `modules[a]` serves the tokens with choice a; None makes zeros of them. A module without tokens is not
    called. If all tokens agree, the module sees `x_BTD` as it is, so that all-big is the base model bit for
    bit. `naive.execute` is the slow twin. Cost: each module's own, times its share of the tokens.
    """
    if not choice_BT.numel():
        return torch.zeros_like(x_BTD)
    first = int(choice_BT.flatten()[0])
    if bool((choice_BT == first).all()):
        module = modules[first]
        return torch.zeros_like(x_BTD) if module is None else _run(module, x_BTD)
    x_TD, choice_T = x_BTD.flatten(0, 1), choice_BT.flatten()
    out_TD: Tensor | None = None
    for index, module in enumerate(modules):
        if module is None:
            continue
        rows = (choice_T == index).nonzero().squeeze(1)
        if not len(rows):
            continue
        y_TD = _run(module, x_TD.index_select(0, rows)[None])[0]
        if out_TD is None:
            # Made from the first result, which may have another dtype than the input under autocast.
            out_TD = y_TD.new_zeros(x_TD.shape)
        out_TD.index_add_(0, rows, y_TD)
    # Tokens that all skip agreed above.
    assert out_TD is not None
    return out_TD.view_as(x_BTD)


def _run(module: nn.Module, x_BTD: Tensor) -> Tensor:
    y_BTD: Tensor = module(x_BTD)
    return y_BTD
