"""This module is the gate of CompeteSMoE: now and then all experts answer, and the strongest answers win."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from turnout.core.validation import check_choice, check_count, check_number
from turnout.nn.balance.switch import balance_loss
from turnout.nn.balance.z_loss import z_loss
from turnout.nn.experts import Stack
from turnout.nn.gates.contract import (
    Gate,
    GateContext,
    check_k,
    chosen,
    fp32_logits,
    new_weight,
    normalised,
    real_mean,
    stack_for,
)
from turnout.nn.plan import SparsePlan

Version = Literal["second", "first"]


class CompeteGate(Gate):
    """A gate that learns from competitions: the k experts that answer a token most strongly win it.

    In a competition every expert computes every token. The response of an expert is the mean of
    softplus(f_e(x)) over its outputs, in the first version its length |f_e(x)|_2; weights of the winners are
    their responses over their sum, in the first version a softmax of them. `losses["distil"]` is the mean
    squared difference between the gate's softmax and that of the responses, plus `theta` times the same over
    the winners; in the first version, the losers' responses count as 0. `losses["diversity"]` is the mean
    cosine between the winners' answers, `losses["balance"]` that of the responses. In all other steps, and in
    eval mode, the gate chooses by itself: k best logits, a softmax of them, with `balance` and `z` as losses.

    Source: S70, CompeteSMoE (arXiv 2505.13380), and S132, its first version (arXiv 2402.02526), abstracts and
    released codes. Differs: each layer flips its own coin, without a limit of layers a step; responses are
    constants in the distillation; the cosine is a mean over pairs; executors compute the winners once more.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    version
        `second` or `first`.
    chance
        Probability that a training step is a competition; None for 2 / (2 + root(t + 1)) after t steps, the
        first version's schedule.
    warm_up
        Optimiser steps before the first competition.
    theta
        How much the winners count beside all experts in the second version's distillation.

    Needs `GateContext.experts`; a layer (`MoE`) gives its own.
    """

    expert_rows = ("weight_ED",)
    needs: ClassVar[frozenset[str]] = frozenset({"experts"})
    step: Tensor

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        version: Version = "second",
        chance: float | None = 0.05,
        warm_up: int = 0,
        theta: float = 0.1,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("CompeteGate", k, num_experts)
        check_choice("CompeteGate: version", version, ("second", "first"))
        if chance is not None:
            check_number("CompeteGate: chance", chance, low=0.0, high=1.0)
        self.version, self.chance = version, chance
        self.warm_up = check_count("CompeteGate: warm_up", warm_up, low=0)
        self.theta = check_number("CompeteGate: theta", theta, low=0.0)
        self.weight_ED = new_weight(num_experts, width)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def chance_now(self) -> float:
        """The probability of a competition in this mode at this step."""
        step = int(self.step)
        if not self.training or step < self.warm_up:
            return 0.0
        return 2 / (2 + (step - self.warm_up + 1) ** 0.5) if self.chance is None else self.chance

    @property
    def is_apart(self) -> bool:  # type: ignore[override]
        """Whether each step is a competition, whose weights teach the experts and not the gate."""
        return self.chance_now == 1.0

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; raises `ShapeError` for experts that are not (E, D)."""
        logits_TE, mask_T = fp32_logits(x_TD, self.weight_ED), context.mask_T()
        losses: dict[str, Tensor] = {}
        scores_TE = logits_TE.softmax(dim=-1)
        if self.training and float(torch.rand(())) < self.chance_now:
            stack = stack_for(self, context)
            weights_TK, indices_TK, losses = self._compete(x_TD, stack, scores_TE, mask_T)
        else:
            best_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
            weights_TK = normalised(best_TK)
            if self.training:
                chosen_TE = chosen(indices_TK, self.num_experts)
                losses["balance"] = balance_loss(scores_TE, chosen_TE, mask_T=mask_T)
                losses["z"] = z_loss(logits_TE, mask_T=mask_T)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def after_step(self) -> None:
        """Count the step."""
        self.step += 1

    def responses(self, answers_TED: Tensor) -> Tensor:
        """Return how strongly each expert answers, (T, E)."""
        if self.version == "first":
            norms_TE: Tensor = torch.linalg.vector_norm(answers_TED.float(), dim=-1)
            return norms_TE
        return functional.softplus(answers_TED.float()).mean(dim=-1)

    def _compete(
        self, x_TD: Tensor, stack: Stack, scores_TE: Tensor, mask_T: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the winners' weights and numbers, and the losses of a competition."""
        x_TD = x_TD.to(stack.up_EFD.dtype)
        answers_TED = torch.stack([stack.one(e, x_TD) for e in range(self.num_experts)], dim=1)
        responses_TE = self.responses(answers_TED)
        best_TK, indices_TK = responses_TE.topk(self.k, dim=-1)
        share_TE = responses_TE.softmax(dim=-1)
        if self.version == "first":
            weights_TK = best_TK.softmax(dim=-1)
            goal_TE = torch.zeros_like(share_TE).scatter(1, indices_TK, weights_TK.detach())
            apart_T = (scores_TE - goal_TE).square().mean(dim=-1)
        else:
            weights_TK = normalised(best_TK)
            gap_TE = (scores_TE - share_TE.detach()).square()
            apart_T = gap_TE.mean(dim=-1) + self.theta * gap_TE.gather(1, indices_TK).mean(dim=-1)
        losses = {
            "distil": real_mean(apart_T, mask_T),
            "balance": balance_loss(share_TE, chosen(indices_TK, self.num_experts), mask_T=mask_T),
        }
        if self.version == "second" and self.k > 1:
            own_TKD = answers_TED.take_along_dim(indices_TK[..., None], dim=1).float()
            losses["diversity"] = real_mean(_cosine(own_TKD), mask_T)
        return weights_TK, indices_TK, losses


def _cosine(answers_TKD: Tensor) -> Tensor:
    """Return the mean cosine between the answers of each token's pairs of experts, (T,)."""
    unit_TKD = functional.normalize(answers_TKD, dim=-1)
    count = answers_TKD.shape[1]
    total_T = unit_TKD.sum(dim=1).square().sum(dim=-1) - unit_TKD.square().sum(dim=(1, 2))
    return total_T / (count * (count - 1))
