"""This module is the gate of BlockFFN, whose neighbours share experts, and the two losses that make them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.validation import check_count, check_number
from turnout.nn.gates.contract import Gate, GateContext, by_item, fp32_logits, new_weight
from turnout.nn.plan import SparsePlan

SURE = 1e-5
"""What is added to 1 - share before its logarithm, as in the code of the paper."""


class BlockFFNGate(Gate):
    """Weights are RMSNorm(ReLU(W x)) over the experts: which ones, and how much, do not mix.

    ReLU decides who is active, whatever the size of x; the norm decides the size of the weights, whatever
    the logits'. In training, `losses["locality"]` makes neighbours' activations alike, and `losses["chunk"]`
    is the chance that an expert is touched by any of `chunk` tokens in a row.

    Source: S90, BlockFFN (arXiv 2507.08771), its code. Differs: losses are unscaled, and the schedule of
    their factors is left to the caller; a last chunk that is not full counts like the others.

    Parameters
    ----------
    width, num_experts
        D and E.
    chunk
        Tokens in a row.
    sharpness
        Multiplies the logits that neighbours compare.
    eps
        Under the root of the mean square; a token without an expert has weights 0.
    """

    expert_rows = ("weight_ED", "scale_E")

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        chunk: int = 8,
        sharpness: float = 100.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        check_count("BlockFFNGate: chunk", chunk)
        check_number("BlockFFNGate: sharpness", sharpness, low=0.0, allow_low=False)
        check_number("BlockFFNGate: eps", eps, low=0.0, allow_low=False)
        self.chunk, self.sharpness, self.eps = chunk, sharpness, eps
        self.weight_ED = new_weight(num_experts, width)
        self.scale_E = nn.Parameter(torch.ones(num_experts))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        active_TE = functional.relu(logits_TE)
        size_T1 = (active_TE.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()
        losses = {}
        if self.training:
            losses["locality"] = self._locality(logits_TE, context)
            losses["chunk"] = self._chunk(active_TE, context)
        return SparsePlan.from_dense(
            active_TE * size_T1 * self.scale_E.float(),
            is_pair_TE=logits_TE.detach() > 0,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=active_TE,
            losses=losses,
        )

    def _locality(self, logits_TE: Tensor, context: GateContext) -> Tensor:
        """Return the cross entropy between sharpened neighbours of one item."""
        z_BSE = by_item(logits_TE, context) * self.sharpness
        left, right = z_BSE[:, :-1], z_BSE[:, 1:]
        loss = functional.binary_cross_entropy_with_logits(left, right.sigmoid(), reduction="none")
        if context.mask_BS is None:
            return loss.mean() if loss.numel() else logits_TE.sum() * 0
        both_BS1 = (context.mask_BS[:, :-1] & context.mask_BS[:, 1:])[..., None]
        return (loss * both_BS1).sum() / (both_BS1.sum() * self.num_experts).clamp(min=1)

    def _chunk(self, active_TE: Tensor, context: GateContext) -> Tensor:
        """Return 1 - mean over chunks and experts of the chance that no token of the chunk needs it."""
        share_TE = active_TE / active_TE.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        free_TE = (1 - share_TE + SURE).log()
        mask_T = context.mask_T()
        real_T = torch.ones_like(free_TE[:, 0]) if mask_T is None else mask_T.to(free_TE)
        free_BSE = by_item(free_TE * real_T[:, None], context)
        free_BCE, is_real_BC = (
            in_chunks(free_BSE, self.chunk),
            in_chunks(by_item(real_T, context), self.chunk),
        )
        if not free_BCE.numel():
            return active_TE.sum() * 0
        return 1 - free_BCE.exp()[is_real_BC > 0].mean()


def in_chunks(value_BSX: Tensor, chunk: int) -> Tensor:
    """Return the sum over each `chunk` positions in a row, (B, C, ...); the last chunk may be shorter."""
    items, positions, *rest = value_BSX.shape
    num_chunks = -(-positions // chunk)
    padded = value_BSX.new_zeros(items, num_chunks * chunk, *rest)
    padded[:, :positions] = value_BSX
    return padded.reshape(items, num_chunks, chunk, *rest).sum(dim=2)


def chunk_sparsity(plan: SparsePlan, context: GateContext, chunk: int) -> float:
    """Return the share of experts that none of `chunk` tokens in a row needs: CLS, for chunk = 1 TLS.

    Chunks of padding alone count nowhere; NaN if there is no other.
    """
    check_count("chunk_sparsity: chunk", chunk)
    used_TE = torch.zeros(plan.num_tokens, plan.num_experts, device=plan.experts_N.device)
    used_TE[plan.tokens_N, plan.experts_N] = 1.0
    real_T = used_TE.new_ones(plan.num_tokens) if plan.mask_T is None else plan.mask_T.to(used_TE)
    used_BCE = in_chunks(by_item(used_TE, context), chunk) > 0
    is_real_BC = in_chunks(by_item(real_T, context), chunk) > 0
    return 1 - float(used_BCE[is_real_BC].float().mean())
