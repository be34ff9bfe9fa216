"""This module adds up what each token's experts give, in one pass over rows in the order of experts.

Adding rows to where they belong, expert by expert, reads and writes each token's sum once a pair, in single
precision. Here a token's rows are looked up, weighted and added up at once, and its sum is written once.

Axes: T tokens, N pairs in the order of experts, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from turnout.nn.executors.precision import wide


class TokenSums:
    """Where the rows of each token stand among those of the experts; found once for a plan.

    Sums are taken in single precision at least, and rounded once.
    """

    def __init__(self, tokens_N: Tensor, num_tokens: int) -> None:
        self.tokens_N, self.num_tokens = tokens_N, num_tokens
        self._order: tuple[Tensor, Tensor] | None = None

    def of(self, rows_ND: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Return (T, D): the sum of each token's rows, weighted or not, in the precision of the rows."""
        if rows_ND.device.type != "cpu":
            return self._added(rows_ND, weights_N)
        order_N, starts_T = self._sorted()
        if weights_N is not None:
            weights_N = weights_N.index_select(0, order_N)
            if weights_N.dtype != rows_ND.dtype and rows_ND.dtype in (torch.bfloat16, torch.float16):
                return _in_two(rows_ND, weights_N, order_N, starts_T)
            weights_N = weights_N.to(rows_ND.dtype)
        return functional.embedding_bag(order_N, rows_ND, starts_T, mode="sum", per_sample_weights=weights_N)

    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Return (order_N, starts_T): the rows in the order of tokens, and where each token's begin."""
        if self._order is None:
            counts_T = torch.zeros(self.num_tokens, dtype=torch.int64)
            counts_T.index_add_(0, self.tokens_N, torch.ones_like(self.tokens_N))
            self._order = torch.argsort(self.tokens_N, stable=True), counts_T.cumsum(0) - counts_T
        return self._order

    def _added(self, rows_ND: Tensor, weights_N: Tensor | None) -> Tensor:
        exact = wide(rows_ND.dtype)
        y_TD = torch.zeros(self.num_tokens, rows_ND.shape[1], dtype=exact, device=rows_ND.device)
        weighted_ND = rows_ND.to(exact) if weights_N is None else rows_ND.to(exact) * weights_N[:, None]
        return y_TD.index_add_(0, self.tokens_N, weighted_ND.to(exact)).to(rows_ND.dtype)


def _in_two(rows_ND: Tensor, weights_N: Tensor, order_N: Tensor, starts_T: Tensor) -> Tensor:
    """Weight by the sum of two numbers in half precision: what the first one lost is in the second."""
    high_N = weights_N.to(rows_ND.dtype)
    low_N = (weights_N - high_N.to(weights_N.dtype)).to(rows_ND.dtype)
    return functional.embedding_bag(
        order_N.repeat_interleave(2),
        rows_ND,
        starts_T * 2,
        mode="sum",
        per_sample_weights=torch.stack((high_N, low_N), dim=1).flatten(),
    )
