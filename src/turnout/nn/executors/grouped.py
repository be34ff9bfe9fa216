"""This module runs experts by torch's grouped matrix product, wherever a probe says that it works."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from turnout.nn.executors.products import SortedExecutor, segment_product
from turnout.nn.plan import SparsePlan
from turnout.nn.probe import Probe
from turnout.nn.uncompiled import untraced

BYTES = 16
"""Strides and addresses have to be multiples of so many bytes."""


class GroupedExecutor(SortedExecutor):
    """Two grouped products for all experts: no wait for the offsets, and few launches.

    Where `works` says no, such as for widths that are no multiple of 16 bytes, segments are multiplied one
    after the other instead.
    """

    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return each row times its expert's weight."""
        is_aligned = weight_EJK.data_ptr() % BYTES == 0
        if not (is_aligned and x_NK.shape[0] and works(x_NK.device, x_NK.dtype, *weight_EJK.shape[1:])):
            return segment_product(x_NK, weight_EJK, plan.offsets_E)
        grouped = _grouped if x_NK.dtype == torch.bfloat16 else _grouped_apart
        return grouped(x_NK, weight_EJK, plan.offsets_E)


@untraced
def works(device: torch.device, dtype: torch.dtype, num_outputs: int, num_inputs: int) -> bool:
    """Return whether a grouped product of these sizes was right here, forward and backward.

    It is tried once for each device, precision and remainder of the sizes: on three experts, one of them
    without rows, against a loop.
    """
    return _probe(str(device), dtype, num_outputs % BYTES, num_inputs % BYTES)


def _is_right(device: str, dtype: torch.dtype, num_outputs: int, num_inputs: int) -> bool:
    # A generator of its own: a probe must not move anybody's random numbers.
    random = torch.Generator().manual_seed(0)
    shapes = ((5, BYTES + num_inputs), (3, BYTES + num_outputs, BYTES + num_inputs))
    x_NK, weight_EJK = (torch.randn(shape, generator=random).to(device, dtype) for shape in shapes)
    offsets_E = torch.tensor([2, 2, 5], dtype=torch.int32, device=device)
    results = []
    for product in (_grouped, segment_product):
        x, weight = (part.clone().requires_grad_() for part in (x_NK, weight_EJK))
        y_NJ = product(x, weight, offsets_E)
        grads = torch.autograd.grad(y_NJ.square().sum(), (x, weight))
        results.append((y_NJ.detach(), *grads))
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(*results, strict=True))


_probe = Probe(_is_right, otherwise=False)


def _grouped(x_NK: Tensor, weight_EJK: Tensor, offsets_E: Tensor) -> Tensor:
    product: Any = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
    y_NJ: Tensor = product(x_NK, weight_EJK.transpose(1, 2), offs=offsets_E)
    whole: Tensor = _WholeGradient.apply(y_NJ)  # type: ignore[no-untyped-call]
    return whole


_grouped_apart = untraced(_grouped)
"""What the compiler knows of the product's shapes it knows for bfloat16 alone."""


class _WholeGradient(torch.autograd.Function):
    """Hands back a gradient in memory of its own: in single precision the product refuses an expanded one."""

    @staticmethod
    def forward(_ctx: Any, y_NJ: Tensor) -> Tensor:
        return y_NJ.view_as(y_NJ)

    @staticmethod
    def backward(_ctx: Any, dy_NJ: Tensor) -> Tensor:
        return dy_NJ.contiguous()
