"""This module holds the plans without a choice: experts that run on mixtures of tokens, or are mixed.

Axes: B items of S positions, E experts, Z = E * P slots, G groups of tokens that share one merged expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.plan import Plan, SparsePlan, check_within, equal, same_device


@dataclass(frozen=True, kw_only=True)
class SlotPlan(Plan):
    """Soft slots: an expert's inputs are weighted means of tokens, a token's output is one of slots.

    Slot z belongs to expert z // P. Slot inputs are dispatch_BSZ^T x, outputs combine_BSZ y, item by item.
    Source: Soft MoE (arXiv 2308.00951), equations 1 and 2; S74.
    """

    dispatch_BSZ: Tensor
    """How much each token counts in each slot; over S it adds up to 1."""
    combine_BSZ: Tensor
    """How much each slot counts for each token; over Z it adds up to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dispatch_BSZ.ndim != 3:
            raise ShapeError(
                sentence("dispatch_BSZ", allowed="(B, S, Z)", got=tuple(self.dispatch_BSZ.shape))
            )
        items, positions, slots = self.dispatch_BSZ.shape
        equal("combine_BSZ", self.combine_BSZ, "(B, S, Z)", (items, positions, slots))
        if items * positions != self.num_tokens or slots % self.num_experts:
            raise ShapeError(
                sentence(
                    "dispatch_BSZ",
                    allowed=f"B * S = T = {self.num_tokens} and Z = E * P with E = {self.num_experts}",
                    got=f"B * S = {items} * {positions}, Z = {slots}",
                )
            )
        same_device(self.dispatch_BSZ, self.combine_BSZ)

    @property
    def slots_per_expert(self) -> int:
        """P."""
        return int(self.dispatch_BSZ.shape[2]) // self.num_experts

    def to_dense(self) -> Tensor:
        """Return weights_TE: what a token's output takes from each expert's slots."""
        combine_TZ = self.combine_BSZ.reshape(self.num_tokens, -1)
        return combine_TZ.reshape(self.num_tokens, self.num_experts, self.slots_per_expert).sum(-1)

    def validate(self) -> None:
        """Read the numbers too; raises `InputError` unless real tokens' means are means."""
        dispatch_BZ = self.dispatch_BSZ.sum(1)
        combine_T = self.combine_BSZ.sum(2).reshape(-1)
        if self.mask_T is not None:
            items, positions, _ = self.dispatch_BSZ.shape
            mask_BS = self.mask_T.reshape(items, positions)
            if bool((self.dispatch_BSZ * ~mask_BS[..., None]).any()):
                raise InputError(sentence("a plan mixes padding into a slot", allowed="weight 0"))
            dispatch_BZ, combine_T = dispatch_BZ[mask_BS.any(1)], combine_T[self.mask_T]
        # Without a position there is nothing to take a mean of.
        if self.dispatch_BSZ.shape[1]:
            _require_ones("dispatch_BSZ over S", dispatch_BZ)
        _require_ones("combine_BSZ over Z", combine_T)


@dataclass(frozen=True, kw_only=True)
class MergedPlan(Plan):
    """Merged experts: the tokens of a group run through one expert, the weighted mean of all parameters.

    Source: SMEAR (arXiv 2306.03745), section 3; S79. A group is an item there; it may be as small as a token.
    """

    mix_GE: Tensor
    """How much each expert's parameters count in each group; over E it adds up to 1."""
    groups_T: Tensor
    """The group of each token, int64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        equal("groups_T", self.groups_T, "(T,)", (self.num_tokens,))
        if self.mix_GE.ndim != 2 or self.mix_GE.shape[1] != self.num_experts:
            allowed = f"(G, E) with E = {self.num_experts}"
            raise ShapeError(sentence("mix_GE", allowed=allowed, got=tuple(self.mix_GE.shape)))
        same_device(self.mix_GE, self.groups_T)
        num_groups = self.mix_GE.shape[0]
        is_known = bool(self.num_tokens) and not self.groups_T.is_meta
        if is_known:
            check_within("groups_T", self.groups_T, num_groups)

    def to_dense(self) -> Tensor:
        """Return weights_TE: the mix of each token's group; padding has none."""
        mix_TE = self.mix_GE[self.groups_T]
        return mix_TE if self.mask_T is None else mix_TE * self.mask_T[:, None]

    def validate(self) -> None:
        """Read the numbers too; raises `InputError` for mixes that are no means."""
        _require_ones("mix_GE over E", self.mix_GE.sum(1))


def as_slots(plan: SparsePlan) -> SlotPlan:
    """Return a plan of pairs as one of slots, of a batch that is one item: each pair has a slot of its own.

    So all plans have one form: slot inputs are dispatch^T x, outputs combine times the experts' answers. A
    choice dispatches by 0 and 1, soft slots by means. An expert has as many slots as the busiest one has
    pairs; what is left over is empty and counts for nobody. It is for comparing and costs T E P numbers.
    Source: the two tensors of S74, Routers in Vision Mixture of Experts, read in its abstract.
    """
    counts_E = plan.counts_E
    size = max(int(counts_E.max()), 1) if len(counts_E) else 1
    first_E = plan.offsets_E.to(torch.int64) - counts_E
    place_N = torch.arange(plan.num_pairs, device=plan.experts_N.device) - first_E[plan.experts_N]
    slots_N = plan.experts_N * size + place_N
    empty_BSZ = plan.weights_N.new_zeros(1, plan.num_tokens, plan.num_experts * size)
    place = (torch.zeros_like(slots_N), plan.tokens_N, slots_N)
    return SlotPlan(
        dispatch_BSZ=empty_BSZ.index_put(place, torch.ones_like(plan.weights_N)),
        combine_BSZ=empty_BSZ.index_put(place, plan.weights_N),
        num_tokens=plan.num_tokens,
        num_experts=plan.num_experts,
        logits_TE=plan.logits_TE,
        scores_TE=plan.scores_TE,
        mask_T=plan.mask_T,
        losses=plan.losses,
    )


def _require_ones(what: str, sums: Tensor) -> None:
    if not torch.allclose(sums.float(), torch.ones_like(sums, dtype=torch.float32), atol=1e-2):
        raise InputError(sentence(what, allowed="sums of 1", got=sums.detach().flatten()[:8].tolist()))
