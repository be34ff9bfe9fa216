"""This module chooses the tiles of the Triton kernels, and which of two kinds of kernel reads them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from turnout.core.errors import missing_extra

try:
    from triton.runtime.interpreter import InterpretedFunction

    from turnout.nn.executors import triton_kernels
except ImportError as error:
    raise missing_extra("triton", feature="experts by Triton", extra="triton") from error

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # before Triton 3.4
    TensorDescriptor = None

Kind = Literal["product", "gathered product", "swiglu", "gradient", "gathered gradient"]

IS_INTERPRETED = isinstance(triton_kernels.product_kernel, InterpretedFunction)
"""Whether the kernels run in Triton's interpreter, on any device (TRITON_INTERPRET=1 before the import)."""

COPIES = 9
"""The compute capability from which on the device copies tiles by itself."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Sizes of a tile, powers of two of at least 16, and how a program runs it."""

    rows: int
    """Pairs: of the output in a product, summed over in a gradient."""
    outputs: int
    inputs: int
    """Summed over in a product, the second axis of the output in a gradient."""
    group: int = 4
    """How many blocks of rows share what they read of the weights."""
    warps: int = 8
    stages: int = 4
    stays: bool = False
    """Whether a program for each processor goes from tile to tile."""

    def launch(self) -> dict[str, int]:
        """Return what Triton is told beside a kernel's own arguments."""
        return {"num_warps": self.warps, "num_stages": self.stages}


def rows_for(num_pairs: int, num_experts: int, dtype: torch.dtype) -> int:
    """Return the rows of a product's tile: as many as an expert has on average, up to what pays."""
    mean = num_pairs / max(num_experts, 1)
    # Without matrix units registers hold less.
    most = 64 if dtype == torch.float32 else 128
    return next((size for size in (16, 32, 64) if mean <= size), most)


def tiles_for(kind: Kind, num_pairs: int, num_experts: int, dtype: torch.dtype) -> Tiles:
    """Return tiles for as many rows as an expert has on average; measured in `benchmarks/nn/NOTES.md`."""
    rows = rows_for(num_pairs, num_experts, dtype)
    if dtype == torch.float32:
        return Tiles(rows=rows, outputs=64, inputs=32, warps=4, stages=3)
    if kind in ("gradient", "gathered gradient"):
        # What is gathered is read in two steps, so that fewer tiles are on their way.
        stages = 3 if kind == "gradient" else 5
        inputs = 128 if num_pairs <= 1024 * num_experts else 256
        return Tiles(rows=64, outputs=128, inputs=inputs, warps=inputs // 32, stages=stages)
    if rows < 128:
        return Tiles(rows=rows, outputs=128, inputs=64, warps=4)
    if kind == "product":
        return Tiles(rows=rows, outputs=256, inputs=64, group=2, stages=3, stays=True)
    return Tiles(rows=rows, outputs=256 if kind == "gathered product" else 128, inputs=64)


def are_described(tiles: Tiles, num_outputs: int, num_inputs: int, *matrices: Tensor) -> bool:
    """Return whether the device can copy tiles of these matrices: (N, K), or (E, J, K) either way round."""
    return (
        TensorDescriptor is not None
        and num_outputs % tiles.outputs == 0
        and num_inputs % tiles.inputs == 0
        and all(_is_describable(matrix) for matrix in matrices)
    )


def describe(matrix: Tensor, block: list[int]) -> Any:
    """Return the descriptor of a matrix, all experts' rows under each other."""
    return TensorDescriptor.from_tensor(matrix.flatten(0, -2), block)


def _is_describable(matrix: Tensor) -> bool:
    is_half = matrix.element_size() == 2
    return is_half and matrix.is_contiguous() and matrix.data_ptr() % 16 == 0 and _copies(matrix.device)


@functools.cache
def _copies(device: torch.device) -> bool:
    if IS_INTERPRETED:
        return True
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= COPIES
