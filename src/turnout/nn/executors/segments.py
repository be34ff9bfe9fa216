"""This module runs the experts one after the other over the sorted pairs of a plan."""

from __future__ import annotations

from torch import Tensor

from turnout.nn.executors.products import SortedExecutor, segment_product
from turnout.nn.executors.swiglu import run_swiglu
from turnout.nn.executors.swiglu_back import Weights
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan
from turnout.nn.uncompiled import untraced


class SegmentExecutor(SortedExecutor):
    """Multiplies each expert's stretch of the plan by itself; no weight is copied.

    SwiGLU experts run chunk by chunk, with gradients that are written into their place; other experts by two
    products over segments. Half precision is multiplied in single precision on processors without
    instructions for it. Cost: 6 N D I operations forward, twice that backward, as few as there are.
    """

    @untraced
    def run_pairs(self, x_TD: Tensor, plan: SparsePlan, stack: Stack) -> Tensor:
        """Return the sum over each token's pairs of weight times expert."""
        if not stack.is_swiglu or stack.finish is not None:
            return super().run_pairs(x_TD, plan, stack)
        return run_swiglu(
            x_TD,
            plan.weights_N,
            stack.up_EFD,
            stack.down_EDI,
            (stack.up_bias_EF, stack.down_bias_ED),
            tokens_N=plan.tokens_N,
            offsets_E=plan.offsets_E,
            weights=self.read_from(stack, x_TD, plan.weights_N),
        )

    def read_from(self, _stack: Stack, *_given: Tensor) -> tuple[Weights, Weights] | None:
        """Return how up and down are read where no gradients are recorded; None for as they are."""
        return None

    def product(self, x_NK: Tensor, weight_EJK: Tensor, plan: SparsePlan) -> Tensor:
        """Return each row times its expert's weight."""
        return segment_product(x_NK, weight_EJK, plan.offsets_E)
