"""This module measures how much the choice of experts changes: between checkpoints, and towards the last.

Source: OLMoE (arXiv 2409.02060), section 5.1, router saturation: the share of the experts chosen at a
checkpoint that are also chosen at the last one, over the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.analysis.table import Table
from turnout.nn.plan import check_mask


def overlap(chosen_TE: Tensor, other_TE: Tensor) -> float:
    """Return the mean over tokens of |A and B| / max(|A|, |B|).

    With k experts for every token this is the published |A and B| / k. Two empty sets are equal: 1.
    Raises `ShapeError` unless both are of the same tokens and experts, `InputError` unless both are boolean.
    """
    if chosen_TE.shape != other_TE.shape:
        allowed, got = f"(T, E) = {tuple(chosen_TE.shape)}", tuple(other_TE.shape)
        raise ShapeError(sentence("overlap: other_TE", allowed=allowed, got=got))
    for name, one_TE in (("chosen_TE", chosen_TE), ("other_TE", other_TE)):
        check_mask(f"overlap: {name}", one_TE, "(T, E)", tuple(chosen_TE.shape))
    both_T = (chosen_TE & other_TE).sum(dim=-1).double()
    size_T = torch.maximum(chosen_TE.sum(dim=-1), other_TE.sum(dim=-1)).double()
    return float(torch.where(size_T > 0, both_T / size_T.clamp(min=1), 1.0).mean())


def chance_overlap(chosen_TE: Tensor, other_TE: Tensor) -> float:
    """Return the overlap that two choices of these loads would have if they did not know of each other.

    Rows of `other_TE` are shifted against those of `chosen_TE` by half of the tokens.
    """
    flat_TE, shifted_TE = chosen_TE.flatten(0, -2), other_TE.flatten(0, -2)
    return overlap(flat_TE, shifted_TE.roll(max(len(shifted_TE) // 2, 1), dims=0))


def saturation_table(checkpoints: Sequence[str], chosen: Sequence[Sequence[Tensor]]) -> Table:
    """Return saturation and change rate of every checkpoint and layer.

    `chosen[c][l]` is what checkpoint c chose in layer l, on the same tokens. The change rate is 1 - overlap
    with the checkpoint before; NaN for the first.
    """
    if len(checkpoints) != len(chosen) or len(chosen) < 2:
        got = f"{len(checkpoints)} names, {len(chosen)} checkpoints"
        raise InputError(sentence("saturation_table", allowed="two or more checkpoints", got=got))
    if len({len(layers) for layers in chosen}) > 1:
        got = ", ".join(str(len(layers)) for layers in chosen)
        raise ShapeError(sentence("saturation_table: layers", allowed="as many in each checkpoint", got=got))
    last, rows = chosen[-1], []
    for c, (name, layers) in enumerate(zip(checkpoints, chosen, strict=True)):
        for number, here_TE in enumerate(layers):
            changed = 1 - overlap(chosen[c - 1][number], here_TE) if c else float("nan")
            chance = chance_overlap(here_TE, last[number])
            rows.append((name, number, overlap(here_TE, last[number]), chance, changed))
    return Table(
        title="Saturation and change of the choice",
        columns=("checkpoint", "layer", "saturation", "chance", "change_rate"),
        rows=tuple(rows),
        note="saturation: share of experts that the last checkpoint chooses too; chance: of shifted tokens.",
    )
