"""This module is the gate of GRIN: experts are sampled, and the gradient of the sampling is estimated."""

from __future__ import annotations

from torch import Tensor

from turnout.core.validation import check_number
from turnout.nn.gates.contract import Gate, GateContext, check_k, fp32_logits, new_weight
from turnout.nn.gradients.sparse_mixer import sparse_mixer
from turnout.nn.plan import SparsePlan


class SparseMixerGate(Gate):
    """In training k experts are sampled by softmax, one after the other; in eval mode the best are taken.

    Experts far behind the best are closed (see `sparse_mixer`). A weight is the expert's probability among
    the open ones, not divided by a sum; its gradient in the logits is SparseMixer-v2's estimate of what the
    sampling changes.

    Source: S184, GRIN (arXiv 2409.12136), section 2.1, and its code. Differs: `jitter`
    begins at 0.1, as in the first version's code; PhiMoE, the model of this one, has 0.01.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    jitter
        An expert is closed whose logit is behind the best by more than 2 `jitter` of the larger magnitude.
    """

    expert_rows = ("weight_ED",)

    def __init__(self, *, width: int, num_experts: int, k: int = 2, jitter: float = 0.1) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("SparseMixerGate", k, num_experts)
        self.jitter = check_number("SparseMixerGate: jitter", jitter, low=0.0)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        weights_TK, indices_TK = sparse_mixer(logits_TE, self.k, jitter=self.jitter, training=self.training)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=logits_TE.softmax(dim=-1),
        )
