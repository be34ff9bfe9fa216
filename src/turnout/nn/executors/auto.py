"""This module chooses an executor for a plan by a rule that was measured."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.executors.batched import BatchedExecutor
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.grouped import GroupedExecutor, works
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.executors.packed import PackedExecutor
from turnout.nn.executors.precision import has_half
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.executors.sums import FEW_PAIRS
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan
from turnout.nn.probe import Probe

FEW_ROWS = 32
"""Up to so many pairs an expert in half precision, launches count for more than products on a processor."""


class AutoExecutor(Executor):
    """Takes the executor that was fastest where it was measured, `benchmarks/nn/NOTES.md`.

    On a CPU that is `SegmentExecutor`; without gradients in half precision, up to `FEW_ROWS` pairs an expert
    and for more than one token, `GroupedExecutor` if its probe works. On CUDA with Triton it is
    `TritonExecutor`, if its probe works, for SwiGLU experts in half precision without biases and more than
    `FEW_PAIRS` pairs. For all else on an accelerator it is `GroupedExecutor` if its probe works, else
    `SegmentExecutor`; kernels move the rows of many pairs around its products too, if theirs works.
    """

    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return the sum over each token's pairs of weight times expert."""
        return self.choose(plan, stack).run_pairs(x_TD, plan, stack)

    def run_slots(self, x_TD: Tensor, plan: SlotPlan, stack: Stack) -> Tensor:
        """Return combine (expert (dispatch^T x)), all items and experts at once."""
        return SegmentExecutor().run_slots(x_TD, plan, stack)

    def run_merged(self, x_TD: Tensor, plan: MergedPlan, stack: Stack) -> Tensor:
        """Return each token's output of its group's merged expert."""
        return SegmentExecutor().run_merged(x_TD, plan, stack)

    @staticmethod
    def choose(plan: SparsePlan, stack: Stack) -> Executor:
        """Return the executor for this plan and these experts."""
        up_EFD = stack.up_EFD
        if up_EFD.device.type == "cpu":
            is_half = up_EFD.dtype in (torch.bfloat16, torch.float16) and has_half(up_EFD.dtype)
            is_short = plan.num_tokens > 1 and plan.num_pairs <= FEW_ROWS * plan.num_experts
            is_quick = is_half and is_short and not torch.is_grad_enabled()
            is_grouped = is_quick and works(up_EFD.device, up_EFD.dtype, *up_EFD.shape[1:])
            return GroupedExecutor() if is_grouped else SegmentExecutor()
        is_half = up_EFD.dtype in (torch.bfloat16, torch.float16)
        is_large = plan.num_pairs > FEW_PAIRS and up_EFD.device.type == "cuda"
        if is_large and is_half and stack.is_plain_swiglu and triton_works(up_EFD.device, up_EFD.dtype):
            return make_executor("triton")
        does_work = works(up_EFD.device, up_EFD.dtype, *up_EFD.shape[1:])
        return GroupedExecutor() if does_work else SegmentExecutor()


@torch.inference_mode()
def _is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's kernels are there and give what the naive loop gives."""
    random = torch.Generator().manual_seed(0)
    x_TD = torch.randn(300, 256, generator=random).to(device, dtype)
    shapes = ((4, 512, 256), (4, 256, 256))
    up_EFD, down_EDI = (torch.randn(shape, generator=random).div(16).to(device, dtype) for shape in shapes)

    def activate(h_NF: Tensor) -> Tensor:
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate_NI) * up_NI

    stack = Stack(
        up_EFD=up_EFD,
        down_EDI=down_EDI,
        up_bias_EF=None,
        down_bias_ED=None,
        activate=activate,
        is_swiglu=True,
    )
    indices_TK = torch.rand(300, 4, generator=random).topk(2).indices.to(device)
    weights_TK = torch.rand(300, 2, generator=random).to(device, dtype)
    plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=4)
    found_TD = make_executor("triton").run_pairs(x_TD, plan, stack)
    expected_TD = LoopExecutor().run_pairs(x_TD, plan, stack)
    return torch.allclose(found_TD.float(), expected_TD.float(), rtol=5e-2, atol=5e-2)


triton_works = Probe(_is_right, otherwise=False)
"""Whether Triton's kernels are there for a device and a precision, and give what the naive loop gives."""


EXECUTORS: dict[str, type[Executor]] = {
    "auto": AutoExecutor,
    "batched": BatchedExecutor,
    "grouped": GroupedExecutor,
    "loop": LoopExecutor,
    "packed": PackedExecutor,
    "segments": SegmentExecutor,
}
"""The executors by name."""


def make_executor(name: str) -> Executor:
    """Return the executor of a name, `triton` too where it is installed.

    Raises `InputError` for another name, and `MissingExtraError` for `triton` without the extra of that name.
    """
    if name == "triton":
        # Imported where it is asked for: it takes seconds, and is a gigabyte that few need.
        from turnout.nn.executors.triton_executor import TritonExecutor

        return TritonExecutor()
    if name not in EXECUTORS:
        raise InputError(sentence("executor", allowed=sorted([*EXECUTORS, "triton"]), got=name))
    return EXECUTORS[name]()
