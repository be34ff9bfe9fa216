"""This module runs experts that only answer, by products with copies of their weights in oneDNN's own order.

oneDNN packs a weight anew for each product, which takes as long as some thirty rows of it. For weights that
do not change it can be done once.

Axes: N rows, K inputs, J outputs of a product.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from turnout.nn.executors.blocks import Stretch, segments_of
from turnout.nn.executors.forms import outputs_into
from turnout.nn.executors.precision import has_half
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.executors.swiglu_back import Weights
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan

SAMPLES = 8
"""So many numbers along each side of a weight are compared before its copy is used."""


class PackedExecutor(SegmentExecutor):
    """For models that answer and don't learn, on a CPU: each expert's weights are kept a second time, packed.

    An expert is packed when it is first used. The copies cost as much memory as the weights; `forget` frees
    them. Results are those of `SegmentExecutor`, in half precision bit for bit. Where gradients are recorded,
    on other devices, and where oneDNN has no product of this precision, it is `SegmentExecutor`.

    A weight is packed again when torch counts a change of it, when it has other memory, and when one of
    `SAMPLES` times `SAMPLES` numbers of an expert differs. So a merged adapter is noticed even if it was
    written past the count, by way of `.data`; single numbers that are written so are not: call `forget`.
    Weights that are no parameters, such as those that `FactoredExperts` makes for each pass, are not packed.
    """

    def __init__(self) -> None:
        self._packs: Any = WeakTensorKeyDictionary()

    def __deepcopy__(self, memo: object) -> PackedExecutor:
        """Return one without copies: they belong to the weights, of which there are others now."""
        return PackedExecutor()

    def __reduce__(self) -> tuple[type[PackedExecutor], tuple[()]]:
        """Leave the copies out of files."""
        return PackedExecutor, ()

    def forget(self) -> None:
        """Free all copies."""
        self._packs.clear()

    def read_from(self, stack: Stack, *given: Tensor) -> tuple[Weights, Weights] | None:
        """Return the packed weights, None where gradients are recorded or nothing can be packed."""
        if not self._is_packed(stack, *given):
            return None
        return self._weights(stack.up_EFD), self._weights(stack.down_EDI)

    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return each row times its expert's weight."""
        is_learning = torch.is_grad_enabled() and (x_NK.requires_grad or weight_EJK.requires_grad)
        weights = None if is_learning or not can_pack(weight_EJK) else self._weights(weight_EJK)
        if weights is None:
            return super().product(x_NK, weight_EJK, plan)
        y_NJ = x_NK.new_empty(x_NK.shape[0], weight_EJK.shape[1])
        for stretch in segments_of(plan.offsets_E):
            rows = slice(stretch.start, stretch.end)
            outputs_into(y_NJ[rows], x_NK[rows], weights.of(stretch))
        return y_NJ

    @staticmethod
    def _is_packed(stack: Stack, *given: Tensor) -> bool:
        parts = (*given, stack.up_EFD, stack.down_EDI, stack.up_bias_EF, stack.down_bias_ED)
        is_learning = torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in parts)
        return not is_learning and can_pack(stack.up_EFD)

    def _weights(self, weight_EJK: Tensor) -> Weights:
        """Return the packed experts of a parameter, or of a view of one; anything else as it is."""
        owner = weight_EJK if weight_EJK._base is None else weight_EJK._base
        if not isinstance(owner, nn.Parameter):
            return Weights(weight_EJK)
        state = _state(weight_EJK)
        found = self._packs.get(owner)
        if found is None or found.state != state:
            found = self._packs[owner] = _Packs(state)
        return _PackedWeights(weight_EJK, found)


@dataclass
class _Packs:
    """Packed experts of one parameter: the numbers that were sampled, and the copy, by expert."""

    state: tuple[object, ...]
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class _PackedWeights(Weights):
    """One expert's packed weight at a time."""

    def __init__(self, weight_EJK: Tensor, packs: _Packs) -> None:
        super().__init__(weight_EJK)
        self.packs = packs

    def of(self, stretch: Stretch) -> Tensor:
        """Return the packed weight of a stretch's expert."""
        weight_JK = self.weight_EJK.detach()[stretch.expert]
        steps = [max(size // SAMPLES, 1) for size in weight_JK.shape]
        sample = weight_JK[:: steps[0], :: steps[1]]
        found = self.packs.kept.get(stretch.expert)
        if found is None or not torch.equal(found[0], sample):
            found = self.packs.kept[stretch.expert] = sample.clone(), pack(weight_JK)
        return found[1]


def pack(weight_JK: Tensor) -> Tensor:
    """Return a weight in the order that oneDNN's products read."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_JK.contiguous(), None)
    return packed


def can_pack(weight: Tensor) -> bool:
    """Return whether products with packed weights of this device and precision work, and are not slower."""
    dtype, is_on = weight.dtype, getattr(torch.backends.mkldnn, "enabled", True)
    if dtype == torch.float64 or weight.device.type != "cpu" or not is_on:
        return False
    return (dtype == torch.float32 or has_half(dtype)) and _probe(dtype)


@functools.cache
def _probe(dtype: torch.dtype) -> bool:
    """Try a product of 3 rows against torch's own."""
    random = torch.Generator().manual_seed(0)
    x_NK, weight_JK = (torch.randn(rows, 24, generator=random).to(dtype) for rows in (3, 40))
    with _disable_current_modes(), torch.no_grad():
        y_NJ = torch.empty(3, 40, dtype=dtype)
        try:
            outputs_into(y_NJ, x_NK, pack(weight_JK))
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        return torch.allclose(y_NJ, x_NK @ weight_JK.T, rtol=1e-2, atol=1e-2)


def _state(weight_EJK: Tensor) -> tuple[object, ...]:
    """Return what names a weight's memory, and how often it was changed by count."""
    version = None if weight_EJK.is_inference() else weight_EJK._version
    return version, weight_EJK.data_ptr(), weight_EJK.dtype, tuple(weight_EJK.shape), weight_EJK.stride()
