"""This module states what an executor is: it runs experts on tokens as a plan says, and adds up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.experts import Stack, stack_of
from turnout.nn.plan import Plan, SparsePlan, floating, same_device
from turnout.nn.plan_dense import MergedPlan, SlotPlan


class Executor(ABC):
    """Runs plans. An implementation is one file, and gives what `LoopExecutor` gives.

    Products and activations are of the experts' precision, weighting and adding up of single precision at
    least; the result has the precision of x_TD. Gradients flow to the states, the weights and the experts.
    Under `torch.autocast` on CUDA experts of single precision, and the states, are made what it asks for.

    Attributes
    ----------
    is_plain
        Whether pairs are run by operations of torch's alone, which `torch.func` can transform.
    """

    is_plain: ClassVar[bool] = False

    def run(self, x_TD: Tensor, plan: Plan, experts: nn.Module) -> Tensor:
        """Return y_TD; 0 where a token has no expert.

        Raises `ShapeError` where plan, states and experts do not fit, and `InputError` for mixed devices, for
        the device `meta`, and inside a transform of `torch.func` for pairs unless it `is_plain`.
        """
        stack = stack_of(experts)
        _check(x_TD, plan, stack)
        if (half := _autocast_dtype(x_TD, stack)) is not None:
            return self._run(x_TD.to(half), plan, stack.to(half)).to(x_TD.dtype)
        return self._run(x_TD, plan, stack)

    def _run(self, x_TD: Tensor, plan: Plan, stack: Stack) -> Tensor:
        if isinstance(plan, SparsePlan):
            if not self.is_plain and _is_transformed():
                what = f"{type(self).__name__} inside a transform of torch.func, such as grad or vmap"
                raise InputError(sentence(what, do="run the experts with make_executor('loop')"))
            return self.run_pairs(x_TD, plan, stack)
        if isinstance(plan, SlotPlan):
            if plan.mask_T is not None:
                # A slot's weight of padding is 0, and 0 times NaN is NaN.
                x_TD = x_TD.masked_fill(~plan.mask_T[:, None], 0.0)
            return self.run_slots(x_TD, plan, stack)
        if isinstance(plan, MergedPlan):
            return self.run_merged(x_TD, plan, stack)
        raise InputError(
            sentence("plan", allowed="SparsePlan, SlotPlan or MergedPlan", got=type(plan).__name__)
        )

    @abstractmethod
    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return y_TD for a sparse plan."""

    @abstractmethod
    def run_slots(self, x_TD: Tensor, plan: SlotPlan, stack: Stack) -> Tensor:
        """Return y_TD for soft slots."""

    @abstractmethod
    def run_merged(self, x_TD: Tensor, plan: MergedPlan, stack: Stack) -> Tensor:
        """Return y_TD for merged experts."""


AUTOCAST = ("cuda",)
"""Where products in half precision are so much faster that autocast is followed, as its own operations do."""


def _autocast_dtype(x_TD: Tensor, stack: Stack) -> torch.dtype | None:
    """Return what autocast makes of experts, None where it leaves them alone."""
    kind = x_TD.device.type
    if kind not in AUTOCAST or not torch.is_autocast_enabled(kind) or stack.up_EFD.dtype != torch.float32:
        return None
    return torch.get_autocast_dtype(kind)


def _is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work; a torch that can't say refuses by itself."""
    ask = getattr(torch._C, "_are_functorch_transforms_active", None)
    return ask is not None and bool(ask())


def _check(x_TD: Tensor, plan: Plan, stack: Stack) -> None:
    if x_TD.ndim != 2 or tuple(x_TD.shape) != (plan.num_tokens, stack.width):
        raise ShapeError(
            sentence(
                "x_TD, plan and experts",
                allowed=f"(T, D) = ({plan.num_tokens}, {stack.width}): T of the plan, D of the experts",
                got=tuple(x_TD.shape),
            )
        )
    floating("x_TD", x_TD)
    if plan.num_experts != stack.num_experts:
        raise ShapeError(
            sentence(
                "E of the plan = E of the experts",
                allowed=f"E = {stack.num_experts}",
                got=f"E = {plan.num_experts}",
                do="make the gate for these experts",
            )
        )
    if isinstance(plan, SparsePlan):
        read: tuple[Tensor, ...] = (plan.weights_N,)
    elif isinstance(plan, SlotPlan):
        read = (plan.dispatch_BSZ,)
    else:
        read = ()
    same_device(x_TD, stack.up_EFD, *read)
    if x_TD.is_meta:
        # How many rows an expert has is a number, and decides what is run.
        raise InputError(
            sentence("x_TD, plan and experts", allowed="a device that holds numbers", got="meta")
        )
