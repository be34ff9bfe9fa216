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
from turnout.nn.probe import Probe

FEW_PAIRS = 4096
"""Up to so many pairs an accelerator waits for launches, and what takes the fewest is quickest."""


class TokenSums:
    """Where the rows of each token stand among those of the experts; found once for a plan.

    Sums are taken in single precision at least, and rounded once.
    """

    def __init__(self, tokens_N: Tensor, num_tokens: int) -> None:
        self.tokens_N, self.num_tokens = tokens_N, num_tokens
        self._order: tuple[Tensor, Tensor] | None = None

    def of(self, rows_ND: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Return (T, D): the sum of each token's rows, weighted or not, in the precision of the rows."""
        device, dtype = rows_ND.device, rows_ND.dtype
        if device.type != "cpu" and (len(rows_ND) <= FEW_PAIRS or not bags_work(device, dtype)):
            return self.added(rows_ND, weights_N).to(dtype)
        return self.in_bags(rows_ND, weights_N)

    def in_bags(self, rows_ND: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Return the sums by reading each row once, where its token's sum is."""
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
            counts_T = torch.zeros(self.num_tokens, dtype=torch.int64, device=self.tokens_N.device)
            counts_T.index_add_(0, self.tokens_N, torch.ones_like(self.tokens_N))
            self._order = torch.argsort(self.tokens_N, stable=True), counts_T.cumsum(0) - counts_T
        return self._order

    def added(self, rows_ND: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Return the sums in single precision at least, by adding one row after the other: few launches."""
        exact = wide(rows_ND.dtype)
        y_TD = torch.zeros(self.num_tokens, rows_ND.shape[1], dtype=exact, device=rows_ND.device)
        weighted_ND = rows_ND.to(exact) if weights_N is None else rows_ND * weights_N[:, None].to(exact)
        return y_TD.index_add_(0, self.tokens_N, weighted_ND.to(exact))


@torch.inference_mode()
def _is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether sums in bags are right on an accelerator, against additions."""
    random = torch.Generator().manual_seed(0)
    tokens_N = torch.randint(0, 9, (40,), generator=random).to(device)
    rows_ND, weights_N = torch.randn(40, 24, generator=random), torch.rand(40, generator=random)
    rows_ND, sums = rows_ND.to(device, dtype), TokenSums(tokens_N, 10)
    tolerance = 1e-5 if wide(dtype) == dtype else 2e-2
    return all(
        torch.allclose(
            sums.in_bags(rows_ND, given).to(wide(dtype)),
            sums.added(rows_ND, given),
            rtol=tolerance,
            atol=tolerance,
        )
        for given in (None, weights_N.to(device))
    )


bags_work = Probe(_is_right, otherwise=False)
"""Whether sums in bags are right for a device and a precision."""


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
