"""This module is the gate of the checkpoints: score, select, weight, scale."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_choice, check_number
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    check_k,
    fp32_logits,
    jittered,
    moved_within,
    new_weight,
)
from turnout.nn.moe_rule import GateRule, GroupScore, Score, Weight
from turnout.nn.plan import SparsePlan


class TopKGate(Gate):
    """Each token goes to its k best experts, by the four knobs of a `GateRule`.

    Cost: 2 T D E operations and a top-k. Source: Shazeer et al., 2017 (arXiv 1701.06538), without its noise;
    Mixtral (arXiv 2401.04088) by default, DeepSeek-V3 (arXiv 2412.19437), equations 12 to 16, with
    score="sigmoid", weight="guarded_sum", is_biased, groups and a scale.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    score
        `softmax`, `sigmoid`, `sqrtsoftplus` or `raw` logits.
    weight
        What the chosen scores become: `score` as they are, `sum` to 1, `guarded_sum`, or a `softmax` of them.
        A single one that becomes 1 has the gradient of its log probability, since its own is 0.
    scale
        Multiplies the weights; None is 1.
    is_biased
        Whether a buffer `selection_bias` (E,) is added to the scores for the choice alone.
    num_groups, topk_group, group_score
        Experts in so many groups, of which the best few are open; a group's score is the sum of its two best
        or its best.
    jitter
        In training, hidden states are multiplied by uniform numbers in [1 - jitter, 1 + jitter] (Switch
        Transformers, arXiv 2101.03961).

    Raises `InputError` for k > E, or more than the open groups hold, and unknown knobs.
    """

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        score: Score = "softmax",
        weight: Weight = "sum",
        scale: float | None = None,
        is_biased: bool = False,
        num_groups: int = 1,
        topk_group: int = 1,
        group_score: GroupScore = "top2",
        jitter: float = 0.0,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("TopKGate", k, num_experts)
        knobs = (
            ("score", score, ("softmax", "sigmoid", "sqrtsoftplus", "raw")),
            ("weight", weight, ("score", "sum", "guarded_sum", "softmax")),
            ("group_score", group_score, ("top2", "max")),
        )
        for name, value, allowed in knobs:
            check_choice(f"TopKGate: {name}", value, allowed)
        check_number("TopKGate: jitter", jitter, low=0.0, high=1.0, allow_high=False)
        if scale is not None:
            check_number("TopKGate: scale", scale)
        self._check_groups(num_groups, topk_group, group_score)
        self.score, self.weight, self.scale, self.is_biased = score, weight, scale, is_biased
        self.num_groups, self.topk_group, self.group_score = num_groups, topk_group, group_score
        self.jitter = jitter
        self.weight_ED = new_weight(num_experts, width)
        if is_biased:
            self.exact_buffer("selection_bias", torch.zeros(num_experts, dtype=torch.float32))
        self.rule = GateRule(
            score=score,
            weight=weight,
            k=k,
            scale=scale,
            bias_name="selection_bias" if is_biased else None,
            num_groups=num_groups,
            topk_group=topk_group,
            group_score=group_score,
            is_own=True,
        )

    @property
    def expert_rows(self) -> tuple[str, ...]:  # type: ignore[override]
        """The weight, and the bias where there is one."""
        return ("weight_ED", "selection_bias") if self.is_biased else ("weight_ED",)

    def expert_order(self) -> Tensor:
        """Return an order in which groups move, and experts inside them."""
        order_GE = moved_within(self.num_experts, self.num_groups).reshape(self.num_groups, -1)
        return order_GE[moved_within(self.num_groups)].flatten()

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        if self.training and self.jitter > 0:
            x_TD = jittered(x_TD, self.jitter)
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        scores_TE = self.rule.scores(logits_TE)
        weights_TK, indices_TK = self.rule.apply(self, logits_TE, scores_TE=scores_TE)
        if self.k == 1 and self.weight != "score":
            # A weight that is 1 whatever the logits are has no gradient: it is given that of its logarithm.
            log_T1 = self.rule.log_probabilities(logits_TE).gather(1, indices_TK)
            weights_TK = weights_TK.detach() * (log_T1 - log_T1.detach()).exp()
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )

    def _check_groups(self, num_groups: int, topk_group: int, group_score: GroupScore) -> None:
        if num_groups < 1 or self.num_experts % num_groups or not 1 <= topk_group <= num_groups:
            raise InputError(
                sentence(
                    "TopKGate: groups",
                    allowed=f"E = {self.num_experts} = num_groups * size and 1 <= topk_group <= num_groups",
                    got=f"num_groups = {num_groups}, topk_group = {topk_group}",
                )
            )
        size = self.num_experts // num_groups
        if num_groups > 1 and (self.k > topk_group * size or (group_score == "top2" and size < 2)):
            raise InputError(
                sentence(
                    "TopKGate: k",
                    allowed=f"k <= topk_group * size = {topk_group} * {size}, with size >= 2 for 'top2'",
                    got=self.k,
                )
            )
