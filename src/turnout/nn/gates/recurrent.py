"""This module is the gate of RMoE: what a layer chose is remembered by the gates of the layers above."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, check_k, normalised
from turnout.nn.plan import SparsePlan


class RecurrentGate(Gate):
    """r_l = GRU(W1_l x, r_(l-1)), logits = W2_l r_l: one GRU for all layers, projections for each.

    One gate serves all layers: `GateContext.layer` says which, and `Plan.state` carries r_l to the next one,
    r_0 = 0. Each token remembers its own layers, so the gate sees the token. Chosen are the k largest of the
    softmax, weights are divided by their sum.

    Source: S32, RMoE (arXiv 2408.06793), section 3, and its code. Differs: H is 128 unless
    told otherwise, 256 in the code.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    num_layers
        L, the layers that it serves.
    hidden
        Size of r.
    """

    expert_rows = ("out_LEH",)

    def __init__(
        self, *, width: int, num_experts: int, k: int = 2, num_layers: int = 2, hidden: int = 128
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("RecurrentGate", k, num_experts)
        self.num_layers = check_count("RecurrentGate: num_layers", num_layers)
        self.hidden = check_count("RecurrentGate: hidden", hidden)
        self.in_LHD = nn.Parameter(torch.randn(num_layers, hidden, width) / width**0.5)
        self.out_LEH = nn.Parameter(torch.randn(num_layers, num_experts, hidden) / hidden**0.5)
        self.cell = nn.GRUCell(hidden, hidden)

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; raises `InputError` for another layer, and for a later one without a state."""
        layer = context.layer
        if not 0 <= layer < self.num_layers:
            raise InputError(
                sentence("context.layer", allowed=f"0 to num_layers - 1 = {self.num_layers - 1}", got=layer)
            )
        state_TH = x_TD.new_zeros(x_TD.shape[0], self.hidden, dtype=torch.float32)
        if context.state is None and layer:
            allowed = "what the plan of the layer before keeps as `state`"
            raise InputError(sentence(f"context.state in layer {layer}", allowed=allowed))
        if context.state is not None:
            state_TH = context.state.float()
            if state_TH.shape[1:] != (self.hidden,):
                got = tuple(state_TH.shape)
                raise ShapeError(sentence("context.state", allowed=f"(T, H) with H = {self.hidden}", got=got))
        cell = self.cell
        state_TH = torch.gru_cell(
            x_TD.float() @ self.in_LHD[layer].float().T,
            state_TH,
            cell.weight_ih.float(),
            cell.weight_hh.float(),
            cell.bias_ih.float(),
            cell.bias_hh.float(),
        )
        logits_TE = state_TH @ self.out_LEH[layer].float().T
        scores_TE = logits_TE.softmax(dim=-1)
        weights_TK, indices_TK = scores_TE.topk(self.k, dim=-1)
        return SparsePlan.from_choices(
            normalised(weights_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            state=state_TH,
        )
