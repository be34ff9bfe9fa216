"""This module is the gate of Rectify-Router: who finds no room is taken in at home, spare room is filled."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    Sight,
    by_item,
    check_k,
    chosen,
    fp32_logits,
    moved_within,
    new_weight,
    rooms,
)
from turnout.nn.plan import SparsePlan


class RectifyGate(Gate):
    """Top-k with room for ceil(factor k S / E) tokens of an item an expert, whose waste is put right twice.

    First choices find room before second ones, earlier tokens before later ones. *Within a device*: experts
    and each item's tokens lie on `devices` devices in stretches; a token that was turned away d times goes to
    the best other expert on its own device, room or not, and that one counts d times. *Fill-in*: room that is
    left is given to those whose expert after the k-th it is, best scores first. The weights of a token are
    m p over their sum, p the softmax and m how often an expert counts; the sum is a constant to the gradient,
    so that a single expert has one too. `losses["balance"]` is that of the first choice of experts.

    Source: S127, Rectify-Router (arXiv 2402.12399), read in its abstract, and its equations as restated in
    the appendix of a paper that applies it. Differs: room and devices are counted per item, so that the order
    of a batch changes nothing; the expert at home is one that the token does not have yet.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    devices
        G, into which experts and the tokens of an item are cut.
    capacity_factor, eval_capacity_factor
        In training and in eval mode; None for room without end, where nothing is put right.
    is_local, is_filled
        Whether either correction is made.
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 1,
        devices: int = 2,
        capacity_factor: float | None = 1.0,
        eval_capacity_factor: float | None = None,
        is_local: bool = True,
        is_filled: bool = True,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("RectifyGate", k, num_experts)
        self.devices = check_count("RectifyGate: devices", devices)
        if num_experts % devices:
            allowed = f"E = {num_experts} = devices * experts of one"
            raise InputError(sentence("RectifyGate: devices", allowed=allowed, got=devices))
        for name, value in (
            ("capacity_factor", capacity_factor),
            ("eval_capacity_factor", eval_capacity_factor),
        ):
            if value is not None:
                check_number(f"RectifyGate: {name}", value, low=0.0, allow_low=False)
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.is_local, self.is_filled = is_local, is_filled
        self.weight_ED = new_weight(num_experts, width)

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """The sequence where capacity is limited, else the token."""
        return "token" if self._factor() is None else "sequence"

    def expert_order(self) -> Tensor:
        """Return an order in which experts stay on their devices."""
        return moved_within(self.num_experts, self.devices)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; `dropped_E` counts what was turned away, wherever it went then."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        scores_TE = logits_TE.softmax(dim=-1)
        indices_TZ = scores_TE.detach().argsort(dim=-1, descending=True, stable=True)
        wanted_TE = chosen(indices_TZ[:, : self.k], self.num_experts)
        losses = {}
        if self.training:
            losses["balance"] = balance_loss(scores_TE, wanted_TE, mask_T=mask_T)
        factor, counts_TE, dropped_E = self._factor(), wanted_TE, None
        if factor is not None:
            counts_TE, dropped_E = self._rectified(scores_TE.detach(), indices_TZ, context, factor)
        # By logarithms: where only unlikely experts are left, their probabilities are too small to divide.
        raw_TE = logits_TE.log_softmax(dim=-1) + counts_TE.log()
        sums_T1 = raw_TE.detach().logsumexp(dim=-1, keepdim=True)
        return SparsePlan.from_dense(
            (raw_TE - torch.where(sums_T1.isfinite(), sums_T1, 0.0)).exp(),
            is_pair_TE=counts_TE > 0,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
            dropped_E=dropped_E,
        )

    @torch.no_grad()
    def _rectified(
        self, scores_TE: Tensor, indices_TZ: Tensor, context: GateContext, factor: float
    ) -> tuple[Tensor, Tensor]:
        """Return how often each expert counts for each token, (T, E), and how many were turned away, (E,)."""
        scores_BSE, best_BSZ = by_item(scores_TE, context), by_item(indices_TZ, context)
        real_BS = torch.ones_like(scores_BSE[..., 0], dtype=torch.bool)
        if context.mask_BS is not None:
            real_BS = context.mask_BS
        room_B = rooms(self.k * real_BS.sum(dim=1), factor, self.num_experts)
        # All first choices, then all second ones, each in the order of positions.
        wanted_BKSE = torch.zeros_like(scores_BSE)[:, None].repeat(1, self.k, 1, 1)
        wanted_BKSE.scatter_(3, best_BSZ[..., : self.k].transpose(1, 2)[..., None], 1.0)
        wanted_BKSE = wanted_BKSE * real_BS[:, None, :, None]
        queue_BNE = wanted_BKSE.flatten(1, 2)
        is_kept_BNE = (queue_BNE > 0) & (queue_BNE.cumsum(dim=1) <= room_B[:, None, None])
        counts_BSE = is_kept_BNE.reshape(wanted_BKSE.shape).any(dim=1).float()
        taken_BE, dropped_E = counts_BSE.sum(dim=1), (queue_BNE.sum(dim=1) - counts_BSE.sum(dim=1)).sum(dim=0)
        if self.is_local:
            counts_BSE = counts_BSE + self._at_home(scores_BSE, counts_BSE, real_BS)
        if self.is_filled and self.k < self.num_experts:
            next_BS1 = best_BSZ[..., self.k, None]
            is_next_BSE = torch.zeros_like(scores_BSE).scatter(2, next_BS1, 1.0) > 0
            is_open_BSE = is_next_BSE & (counts_BSE == 0) & real_BS[..., None]
            order_BSE = scores_BSE.masked_fill(~is_open_BSE, -1).argsort(dim=1, descending=True, stable=True)
            rank_BSE = order_BSE.argsort(dim=1)
            counts_BSE = counts_BSE + (is_open_BSE & (rank_BSE < (room_B[:, None] - taken_BE)[:, None]))
        return counts_BSE.reshape(scores_TE.shape), dropped_E.long()

    def _at_home(self, scores_BSE: Tensor, counts_BSE: Tensor, real_BS: Tensor) -> Tensor:
        """Return how often the best expert on a token's own device stands in for others, (B, S, E)."""
        size_B1 = real_BS.sum(dim=1, keepdim=True).clamp(min=1)
        home_BS = ((real_BS.cumsum(dim=1) - 1).clamp(min=0) * self.devices) // size_B1
        device_E = torch.arange(self.num_experts, device=scores_BSE.device) // (
            self.num_experts // self.devices
        )
        is_free_BSE = (device_E == home_BS[..., None]) & (counts_BSE == 0)
        best_BS1, expert_BS1 = scores_BSE.masked_fill(~is_free_BSE, -1).max(dim=-1, keepdim=True)
        away_BS1 = (self.k - counts_BSE.sum(dim=-1, keepdim=True)) * real_BS[..., None] * (best_BS1 >= 0)
        return torch.zeros_like(counts_BSE).scatter(2, expert_BS1, away_BS1)

    def _factor(self) -> float | None:
        return self.capacity_factor if self.training else self.eval_capacity_factor
