"""This module holds one LoRA adapter: for each linear module a pair of thin matrices and a scale.

Source: LoRA, arXiv 2106.09685, section 4.1: out = W u + (alpha / r) B A u; rsLoRA, arXiv 2312.03732, for
alpha / sqrt(r). Axes: D inputs of a module, O its outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from turnout.nn.fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class LoraPart:
    """What an adapter adds to one linear module: `scale * B A u`."""

    a_RD: Tensor
    b_OR: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return int(self.a_RD.shape[0])


@dataclass(frozen=True, kw_only=True)
class Lora:
    """One adapter: its parts by the dotted path of the module that each belongs to."""

    name: str
    parts: Mapping[str, LoraPart]
    base_name: str | None = None
    """What the base model was called where the adapter was trained; None means it was not recorded."""
    base_fingerprint: str | None = None
    """`base_fingerprint` of the base where the adapter was trained; None means it was not recorded."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of every part, in the order of the paths."""
        return tuple(self.parts[path].rank for path in sorted(self.parts))


def scale_of(*, alpha: float, rank: int, is_rank_stabilised: bool) -> float:
    """Return alpha / r, or alpha / sqrt(r) for rsLoRA."""
    return alpha / (math.sqrt(rank) if is_rank_stabilised else rank)


def base_fingerprint(linears: Mapping[str, nn.Linear], *, like: object = None) -> str:
    """Return `fingerprint` of the weights of linear modules, by path; in the form of `like`."""
    return fingerprint({path: module.weight for path, module in linears.items()}, like=like)
