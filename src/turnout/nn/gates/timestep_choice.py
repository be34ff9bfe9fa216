"""This module lets experts choose tokens, more of them or fewer as a text gets less noisy."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_choice
from turnout.nn.gates.contract import Gate, GateContext, Sight, check_k, fp32_logits, new_weight
from turnout.nn.gates.expert_choice import WEIGHTS, ChoiceWeight, choose_tokens
from turnout.nn.plan import SparsePlan

Schedule = Literal["linear", "linear_reverse", "cosine_reverse", "gaussian"]
WIDTH = 0.22
"""Standard deviation of the schedule `gaussian`, around a noise of a half."""


class TimestepChoiceGate(Gate):
    """Expert choice with k = round(k_min + (k_max - k_min) s(r)) experts a token; r is the share of noise.

    s(r) is r (`linear`), 1 - r (`linear_reverse`), (1 + cos(pi r)) / 2 (`cosine_reverse`) or
    exp(-(r - 1/2)^2 / (2 WIDTH^2)) (`gaussian`). For models that denoise all tokens at once: a token seen
    late in the process is worth more experts.

    Source: S252 (arXiv 2604.01622), its code. Differs: the centre of `gaussian` is taken to be 1/2.

    Parameters
    ----------
    width, num_experts
        D and E.
    k, k_max
        Experts of a token on average, the fewest and the most.
    schedule
        s, see above. The paper finds `linear_reverse` best.
    weight
        As in `ExpertChoiceGate`.

    Needs `GateContext.timestep_B`, in [0, 1].
    """

    expert_rows = ("weight_ED",)
    sees: Sight = "sequence"
    needs: ClassVar[frozenset[str]] = frozenset({"timestep_B"})

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 1,
        k_max: int = 4,
        schedule: Schedule = "linear_reverse",
        weight: ChoiceWeight = "choosers",
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("TimestepChoiceGate", k, num_experts)
        self.k_max = check_k("TimestepChoiceGate", k_max, num_experts)
        if k > k_max:
            raise InputError(sentence("TimestepChoiceGate: k", allowed=f"k <= k_max = {k_max}", got=k))
        check_choice(
            "TimestepChoiceGate: schedule",
            schedule,
            ("linear", "linear_reverse", "cosine_reverse", "gaussian"),
        )
        check_choice("TimestepChoiceGate: weight", weight, WEIGHTS)
        self.schedule, self.weight = schedule, weight
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        assert context.timestep_B is not None
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        share_B = self.share(context.timestep_B.to(logits_TE))
        k_B = (self.k + (self.k_max - self.k) * share_B).round()
        return choose_tokens(logits_TE, logits_TE.softmax(dim=-1), k_B, context, weight=self.weight)

    def share(self, noise_B: Tensor) -> Tensor:
        """Return s(r), in [0, 1]."""
        if bool(((noise_B < 0) | (noise_B > 1)).any()):
            raise InputError(sentence("context.timestep_B", allowed="0 to 1", got=noise_B.tolist()))
        if self.schedule == "linear":
            return noise_B
        if self.schedule == "linear_reverse":
            return 1 - noise_B
        if self.schedule == "cosine_reverse":
            return (1 + (torch.pi * noise_B).cos()) / 2
        return (-(noise_B - 0.5).square() / (2 * WIDTH**2)).exp()
