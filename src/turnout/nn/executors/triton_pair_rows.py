"""This module moves rows around experts' products by Triton kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from turnout.nn.executors import triton_passes as passes
from turnout.nn.executors.pair_rows import PairRows
from turnout.nn.executors.triton_layout import lying, places
from turnout.nn.operation import current
from turnout.nn.plan import SparsePlan
from turnout.nn.uncompiled import untraced


class KernelRows(PairRows):
    """Waits for no accelerator, and has no copy of the pairs' rows but those that products read and write."""

    def __init__(self, plan: SparsePlan) -> None:
        super().__init__(lying(plan))

    @cached_property
    def place_TK(self) -> Tensor:
        """Where each token's pairs stand, (T, K)."""
        plan = self.plan
        return places(plan.tokens_N, plan.columns_N, num_tokens=plan.num_tokens, num_columns=plan.num_columns)

    @untraced
    def gather(self, x_TD: Tensor) -> Tensor:
        """Return (N, D): the row of each pair's token."""
        with current(x_TD):
            return passes.gather(x_TD, self.plan.tokens_N)

    @untraced
    def add_up(self, rows_ND: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (T, D): the sum of each token's rows, 0 without any."""
        with current(rows_ND):
            return passes.combine(rows_ND, self.place_TK, None, dtype)

    @untraced
    def combine(
        self, out_ND: Tensor, weights_N: Tensor, bias_ED: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Return (T, D): the sum of each token's rows with their experts' biases, weighted."""
        with current(out_ND):
            return passes.combine(
                out_ND, self.place_TK, weights_N, dtype, bias_ED=bias_ED, experts_N=self.plan.experts_N
            )

    @untraced
    def spread(
        self,
        dy_TD: Tensor,
        out_ND: Tensor,
        weights_N: Tensor,
        bias_ED: Tensor | None,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return what `combine` hands back to out_ND and to weights_N; None for what is not needed."""
        plan = self.plan
        with current(out_ND):
            return passes.spread(dy_TD, out_ND, weights_N, bias_ED, plan.tokens_N, plan.experts_N, needs)

    @untraced
    def add_bias(self, h_NJ: Tensor, bias_EJ: Tensor) -> Tensor:
        """Return the rows with their experts' biases added, in the precision of the rows."""
        with current(h_NJ):
            return passes.add_bias(h_NJ, bias_EJ, self.plan.experts_N)

    @untraced
    def by_expert(self, rows_NJ: Tensor) -> Tensor:
        """Return (E, J): the sum of each expert's rows, in single precision."""
        with current(rows_NJ):
            return passes.by_expert(rows_NJ, self.plan.offsets_E)
