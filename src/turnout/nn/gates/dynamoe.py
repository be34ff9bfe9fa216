"""This module is the gate of DynaMoE: some tokens have more experts, some layers more to choose from."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_choice, check_count, check_number
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight, normalised
from turnout.nn.plan import SparsePlan

Schedule = Literal["uniform", "descending", "ascending", "pyramid_up", "pyramid_down", "wave"]

SCHEDULES: tuple[Schedule, ...] = (
    "uniform",
    "descending",
    "ascending",
    "pyramid_up",
    "pyramid_down",
    "wave",
)


class DynaMoEGate(Gate):
    """One to k experts a token: those above a bar between the token's least and largest probability.

    q_e = (p_e - min p) / (max p - min p) over the open experts, p their softmax. Chosen are the k best of
    those with q_e > `threshold`, the best one always; weights are p over their sum. In layer l the first n_l
    experts are open, n_l from `low` to E by the schedule.

    Source: S259, DynaMoE (arXiv 2603.01697), read in its abstract and a summary. Differs: the bar stands
    between the extremes of a token's probabilities; a percentile of them, as the summary has it, leaves the
    same number of experts above it for every token. The form of the schedules is ours.

    Parameters
    ----------
    width, num_experts
        D and E, the experts of the largest layer.
    k
        Experts of a token at most.
    threshold
        The bar, in [0, 1).
    schedule
        One of `SCHEDULES`, see `expert_counts`.
    low
        Experts of the smallest layer.
    """

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 4,
        threshold: float = 0.5,
        schedule: Schedule = "descending",
        low: int = 2,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("DynaMoEGate", k, num_experts)
        where = "DynaMoEGate: threshold"
        self.threshold = check_number(where, threshold, low=0.0, high=1.0, allow_high=False)
        check_choice("DynaMoEGate: schedule", schedule, SCHEDULES)
        self.schedule = schedule
        self.low = check_count("DynaMoEGate: low", low, high=num_experts)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; closed experts have the score 0. Raises `InputError` for an unknown layer."""
        counts_L = expert_counts(self.schedule, context.num_layers, low=self.low, high=self.num_experts)
        if not 0 <= context.layer < context.num_layers:
            allowed = f"0 to num_layers - 1 = {context.num_layers - 1}"
            raise InputError(sentence("context.layer", allowed=allowed, got=context.layer))
        num_open = counts_L[context.layer]
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        is_closed_E = torch.arange(self.num_experts, device=x_TD.device) >= num_open
        scores_TE = logits_TE.masked_fill(is_closed_E, -torch.inf).softmax(dim=-1)
        best_TK, indices_TK = scores_TE.topk(min(self.k, num_open), dim=-1)
        least_T1 = scores_TE.masked_fill(is_closed_E, torch.inf).amin(dim=-1, keepdim=True)
        above_TK = best_TK - least_T1
        is_pair_TK = above_TK > self.threshold * above_TK[:, :1]
        # The best expert stays where all are alike, and where it is alone.
        is_pair_TK = is_pair_TK | (torch.arange(best_TK.shape[1], device=x_TD.device) == 0)
        best_TK = best_TK * is_pair_TK
        return SparsePlan.from_choices(
            normalised(best_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            is_pair_TK=is_pair_TK,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
        )


def expert_counts(schedule: Schedule, num_layers: int, *, low: int, high: int) -> tuple[int, ...]:
    """Return how many experts each layer has, from `low` to `high`.

    `uniform`: high in all; `descending` and `ascending`: a straight line; `pyramid_up`: most in the middle;
    `pyramid_down`: fewest there; `wave`: one turn of a sine around the mean. Raises `InputError` for others,
    and unless 1 <= low <= high.
    """
    check_choice("expert_counts: schedule", schedule, SCHEDULES)
    check_count("expert_counts: num_layers", num_layers)
    check_count("expert_counts: low", low, high=check_count("expert_counts: high", high))
    shares = []
    for layer in range(num_layers):
        depth = layer / max(num_layers - 1, 1)
        middle = 1 - abs(2 * depth - 1)
        shares.append(
            {
                "uniform": 1.0,
                "descending": 1 - depth,
                "ascending": depth,
                "pyramid_up": middle,
                "pyramid_down": 1 - middle,
                "wave": (1 + math.sin(2 * math.pi * depth)) / 2,
            }[schedule]
        )
    return tuple(low + math.floor((high - low) * share + 0.5) for share in shares)
