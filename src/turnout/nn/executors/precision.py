"""This module says in which precision a product of experts is computed, and in which outputs are added up."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

WIDE_ROWS = 4
"""From so many rows on a product in half precision is computed in single precision, where that is faster."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which outputs are added up: at least single."""
    return torch.promote_types(dtype, torch.float32)


def product_dtype(weight_JK: Tensor, rows: int) -> torch.dtype:
    """Return the precision of a product of `rows` rows with a weight.

    It is the weight's own, but single where a processor has no instruction for half precision: there one
    large product in half precision takes as long as four to ten in single precision, and is rounded more.
    """
    is_half = weight_JK.dtype in (torch.bfloat16, torch.float16)
    if is_half and rows >= WIDE_ROWS and weight_JK.device.type == "cpu" and not has_half(weight_JK.dtype):
        return torch.float32
    return weight_JK.dtype


@functools.cache
def has_half(dtype: torch.dtype) -> bool:
    """Return whether this machine's processor multiplies in this half precision by itself."""
    names = ["_is_amx_tile_supported", "_is_avx512_bf16_supported"]
    if dtype == torch.float16:
        names = ["_is_amx_fp16_supported"]
    # A torch that does not say is taken to have it: then nothing is converted.
    answers = [getattr(torch.cpu, name, None) for name in names]
    return not all(answers) or any(answer is not None and answer() for answer in answers)
