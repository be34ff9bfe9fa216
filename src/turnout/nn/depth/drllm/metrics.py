"""This module says how well routers repeat their labels, and how many blocks they call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.contract import MOST_CALLS


@dataclass(frozen=True, kw_only=True)
class RouterMetrics:
    """Over all blocks and questions."""

    macro_f1: float
    """The mean F1 of the classes that occur among labels or decisions."""
    f1: tuple[float, float, float]
    """Of skip, execute and repeat; 0 for a class that does not occur."""
    accuracy: float
    average_layers: float
    """Calls of blocks per question."""


def router_metrics(counts_QL: Tensor, labels_QL: Tensor) -> RouterMetrics:
    """Compare decisions with labels; raises `InputError` for other shapes or no question."""
    if counts_QL.shape != labels_QL.shape or not counts_QL.numel():
        raise InputError(
            sentence("router_metrics", allowed=tuple(labels_QL.shape), got=tuple(counts_QL.shape))
        )
    f1, occurs = [], []
    for choice in range(MOST_CALLS + 1):
        said, meant = counts_QL == choice, labels_QL == choice
        total = int(said.sum() + meant.sum())
        f1.append(2 * int((said & meant).sum()) / total if total else 0.0)
        occurs.append(total > 0)
    known = [value for value, is_there in zip(f1, occurs, strict=True) if is_there]
    return RouterMetrics(
        macro_f1=sum(known) / len(known),
        f1=(f1[0], f1[1], f1[2]),
        accuracy=float((counts_QL == labels_QL).float().mean()),
        average_layers=float(counts_QL.sum(1).to(torch.float64).mean()),
    )
