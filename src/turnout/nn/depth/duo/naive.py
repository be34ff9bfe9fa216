"""This module is the slow twin of `execute`: it computes everything and selects by masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def execute(x_BTD: Tensor, choice_BT: Tensor, modules: Sequence[nn.Module | None]) -> Tensor:
    """Return what `execute.execute` returns, at the price of every module on every token."""
    out_BTD = torch.zeros_like(x_BTD)
    for index, module in enumerate(modules):
        y_BTD = torch.zeros_like(x_BTD) if module is None else module(x_BTD)
        out_BTD = torch.where((choice_BT == index)[..., None], y_BTD, out_BTD)
    return out_BTD
