"""This module is the gate of Switch Transformers: one expert a token, up to a capacity."""

from __future__ import annotations

from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    Sight,
    by_item,
    chosen,
    fp32_logits,
    jittered,
    new_weight,
    rooms,
)
from turnout.nn.plan import SparsePlan


class SwitchGate(Gate):
    """Each token goes to its best expert with the expert's probability as weight, until that one is full.

    p = softmax(W x), y = p_e f_e(x) with e = argmax p. An expert has room for ceil(factor * S / E) tokens of
    an item; later tokens that find it full go nowhere. `losses["balance"]` is E sum f_e P_e.

    Source: S234, Switch Transformers (arXiv 2101.03961), section 2. Differs: the room
    is counted per item, not per device, so that the order of a batch is nobody's, and rounded up.

    Parameters
    ----------
    width, num_experts
        D and E.
    capacity_factor, eval_capacity_factor
        In training and in eval mode; None for room without end. The gate sees the sequence where there is a
        limit, since how much room there is depends on its length.
    jitter
        In training, hidden states are multiplied by uniform numbers in [1 - jitter, 1 + jitter].
    """

    expert_rows = ("weight_ED",)

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        capacity_factor: float | None = 1.25,
        eval_capacity_factor: float | None = None,
        jitter: float = 0.01,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        for name, value in (
            ("capacity_factor", capacity_factor),
            ("eval_capacity_factor", eval_capacity_factor),
        ):
            if value is not None:
                check_number(f"SwitchGate: {name}", value, low=0.0, allow_low=False)
        if not 0 <= jitter < 1:
            raise InputError(sentence("SwitchGate: jitter", allowed="0 <= jitter < 1", got=jitter))
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.jitter = jitter
        self.weight_ED = new_weight(num_experts, width)

    @property
    def sees(self) -> Sight:  # type: ignore[override]
        """The sequence where capacity is limited, else the token."""
        return "token" if self._factor() is None else "sequence"

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        if self.training and self.jitter > 0:
            x_TD = jittered(x_TD, self.jitter)
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.max(dim=-1, keepdim=True)
        mask_T, losses = context.mask_T(), {}
        if self.training:
            losses["balance"] = balance_loss(scores_TE, chosen(indices_TK, self.num_experts), mask_T=mask_T)
        factor, is_kept_TK, capacity, dropped_E = self._factor(), None, None, None
        if factor is not None:
            wanted_TE = chosen(indices_TK, self.num_experts)
            if mask_T is not None:
                wanted_TE = wanted_TE * mask_T[:, None]
            is_kept_TE, capacity = self._kept(wanted_TE, context, factor)
            dropped_E = (wanted_TE.bool() & ~is_kept_TE).sum(dim=0)
            is_kept_TK = is_kept_TE.gather(1, indices_TK)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            is_pair_TK=is_kept_TK,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
            capacity=capacity,
            dropped_E=dropped_E,
        )

    def _kept(self, wanted_TE: Tensor, context: GateContext, factor: float) -> tuple[Tensor, int]:
        """Return which tokens find room, (T, E), and the room of an expert in all items together."""
        wanted_BSE = by_item(wanted_TE, context)
        size_B = wanted_BSE.sum(dim=(1, 2))
        room_B = rooms(size_B, factor, self.num_experts)
        is_kept_BSE = (wanted_BSE > 0) & (wanted_BSE.cumsum(dim=1) <= room_B[:, None, None])
        return is_kept_BSE.reshape(wanted_TE.shape), int(room_B.sum())

    def _factor(self) -> float | None:
        return self.capacity_factor if self.training else self.eval_capacity_factor
