"""This module makes small wrapped models for the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.nn.depth.duo import DuoModel
from turnout.nn.tiny import IGNORED, PAD, Batch, tiny_llama

LAYERS = 4
VOCABULARY = 30


def make_duo(*, allow_skip: bool = False, bias: bool = False, seed: int = 0) -> DuoModel:
    """Return a wrapped model with weights large enough that every module shows in the output."""
    model = tiny_llama(vocab_size=VOCABULARY, width=32, layers=LAYERS, heads=2, seed=seed)
    duo = DuoModel(model, allow_skip=allow_skip, bias=bias, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return duo


def make_ids(rows: int, columns: int, *, seed: int = 0) -> Tensor:
    """Return random tokens, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (rows, columns), generator=generator)


def make_batch(rows: int = 3, columns: int = 7, *, seed: int = 0) -> Batch:
    """Return a batch without padding whose labels are its tokens."""
    ids_BT = make_ids(rows, columns, seed=seed)
    return Batch(input_ids_BT=ids_BT, attention_mask_BT=torch.ones_like(ids_BT), labels_BT=ids_BT)


def pad_left(batch: Batch, columns: int) -> Batch:
    """Return the batch with padding before it."""
    mask_BT = batch.attention_mask_BT
    pad_BT = torch.full((len(mask_BT), columns), PAD)
    return Batch(
        input_ids_BT=torch.cat([pad_BT, batch.input_ids_BT], dim=1),
        attention_mask_BT=torch.cat([torch.zeros_like(pad_BT), mask_BT], dim=1),
        labels_BT=torch.cat([torch.full_like(pad_BT, IGNORED), batch.labels_BT], dim=1),
    )


def make_choice(rows: int, columns: int, *, choices: int = 2, layers: int = LAYERS, seed: int = 1) -> Tensor:
    """Return a random choice for every token and layer."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(choices, (rows, columns, layers), generator=generator)
