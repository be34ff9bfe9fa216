"""This module is the gate of SpeechMoE: each layer's choice reads one embedding that all layers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.plan import SparsePlan


class SpeechMoEGate(Gate):
    """One expert a token, by p = softmax(W_l [e; x_l]), e a small network's view of the first layer's state.

    One gate serves all layers: `GateContext.layer` says which, and `Plan.state` carries e upwards, the same
    in every layer. The weight is p of the expert. `losses["sparsity"]` is the mean over tokens of the L1 norm
    of p / |p|_2: 1 where a token is sure of one expert, root E where all are alike to it.
    `losses["importance"]` is E sum_e (mean p_e)^2: 1 where experts are used alike, E where one has all.

    Source: S117, SpeechMoE (arXiv 2105.03036), read in its abstract; both losses as two public codes that
    name it have them. Differs: the shared network is two layers on the first layer's states, taught by the
    gates' gradients; in the paper it is a recogniser with a loss of its own.

    Parameters
    ----------
    width, num_experts
        D and E.
    num_layers
        L, the layers that it serves.
    hidden
        Size of e.
    """

    expert_rows = ("weight_LEJ",)

    def __init__(self, *, width: int, num_experts: int, num_layers: int = 2, hidden: int = 64) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.num_layers = check_count("SpeechMoEGate: num_layers", num_layers)
        self.hidden = check_count("SpeechMoEGate: hidden", hidden)
        self.in_HD = nn.Parameter(torch.randn(hidden, width) / width**0.5)
        self.out_HH = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
        joined = hidden + width
        self.weight_LEJ = nn.Parameter(torch.randn(num_layers, num_experts, joined) / joined**0.5)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; raises `InputError` for another layer, and for a later one without embedding."""
        if not 0 <= context.layer < self.num_layers:
            allowed = f"0 to num_layers - 1 = {self.num_layers - 1}"
            raise InputError(sentence("context.layer", allowed=allowed, got=context.layer))
        embedding_TH = self._embedding(x_TD, context)
        joined_TJ = torch.cat([embedding_TH, x_TD.float()], dim=-1)
        logits_TE = joined_TJ @ self.weight_LEJ[context.layer].float().T
        scores_TE, mask_T = logits_TE.softmax(dim=-1), context.mask_T()
        weights_TK, indices_TK = scores_TE.max(dim=-1, keepdim=True)
        losses = {}
        if self.training:
            losses["sparsity"] = sparsity_loss(scores_TE, mask_T=mask_T)
            losses["importance"] = mean_importance_loss(scores_TE, mask_T=mask_T)
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            state=embedding_TH,
            losses=losses,
        )

    def _embedding(self, x_TD: Tensor, context: GateContext) -> Tensor:
        state_TH = context.state
        if state_TH is None:
            if context.layer:
                allowed = "what the first layer's plan keeps as `state`"
                raise InputError(sentence(f"context.state in layer {context.layer}", allowed=allowed))
            return functional.relu(x_TD.float() @ self.in_HD.float().T) @ self.out_HH.float().T
        if state_TH.shape[1:] != (self.hidden,):
            allowed = f"(T, H) with H = {self.hidden}"
            raise ShapeError(sentence("context.state", allowed=allowed, got=tuple(state_TH.shape)))
        return state_TH.float()


def sparsity_loss(scores_TE: Tensor, *, mask_T: Tensor | None = None) -> Tensor:
    """Return the mean over tokens of |p / |p|_2|_1, a scalar in [1, root E]; padding counts nowhere."""
    norm_T = functional.normalize(scores_TE, dim=-1).abs().sum(dim=-1)
    return (norm_T * _share(norm_T, mask_T)).sum()


def mean_importance_loss(scores_TE: Tensor, *, mask_T: Tensor | None = None) -> Tensor:
    """Return E sum_e (mean p_e)^2, a scalar in [1, E]; padding counts nowhere."""
    mean_E = (scores_TE * _share(scores_TE[:, 0], mask_T)[:, None]).sum(dim=0)
    return scores_TE.shape[1] * mean_E.square().sum()


def _share(like_T: Tensor, mask_T: Tensor | None) -> Tensor:
    """Return how much each token counts in a mean, (T,)."""
    real_T = torch.ones_like(like_T) if mask_T is None else mask_T.to(like_T)
    return real_T.detach() / real_T.sum().clamp(min=1)
