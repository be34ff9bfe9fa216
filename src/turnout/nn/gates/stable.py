"""This module is the gate of StableMoE: learn to choose, hand that on to the token's name, then stay."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.gates.contract import Gate, GateContext, fp32_logits, real_mean
from turnout.nn.plan import SparsePlan


class StableGate(Gate):
    """One expert a token. For `steps` steps the best by x . c_e, then for good the one of its token id.

    In stage 1 a light gate, a vector per token id against vectors of the experts, learns to foretell the
    choice (`losses["distil"]`), and `losses["balance"]` is sum_e (n_e - n) / n times the sum of its tokens'
    weights, over the tokens. In stage 2 the light gate chooses and is frozen, so that no token changes its
    expert any more. The weight is sigmoid(x . c_e) in both.

    Source: S100, StableMoE (arXiv 2204.08396), section 3, and its code. Differs: the balance loss is divided
    by the number of tokens; the code also adds (1 - weight) x: here that is a residual connection's.

    Parameters
    ----------
    width, num_experts
        D and E.
    vocabulary
        Token ids are below it.
    light
        Size of the light gate's vectors.
    steps
        Optimiser steps of stage 1; the paper takes a tenth of all.

    Needs `GateContext.token_ids_BS`.
    """

    expert_rows = ("weight_ED", "experts_EZ")
    needs: ClassVar[frozenset[str]] = frozenset({"token_ids_BS"})
    step: Tensor

    def __init__(
        self, *, width: int, num_experts: int, vocabulary: int = 256, light: int = 50, steps: int = 1000
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.vocabulary = check_count("StableGate: vocabulary", vocabulary)
        self.light = check_count("StableGate: light", light)
        self.steps = check_count("StableGate: steps", steps)
        self.weight_ED = nn.Parameter(torch.empty(num_experts, width))
        nn.init.orthogonal_(self.weight_ED, gain=0.1)
        self.words_VZ = nn.Parameter(torch.randn(vocabulary, light) / light**0.5)
        self.experts_EZ = nn.Parameter(torch.randn(num_experts, light) / light**0.5)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def is_frozen(self) -> bool:
        """Whether stage 2 has begun."""
        return int(self.step) >= self.steps

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan; raises `InputError` for a token id that is not in the vocabulary."""
        ids_T, mask_T = self._ids(context), context.mask_T()
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        light_TE = self.words_VZ[ids_T].float() @ self.experts_EZ.float().T
        experts_T = (light_TE if self.is_frozen else logits_TE).argmax(dim=-1)
        scores_TE = logits_TE.sigmoid()
        losses = {}
        if self.training and not self.is_frozen:
            real_T = torch.ones_like(ids_T, dtype=torch.bool) if mask_T is None else mask_T
            losses["distil"] = real_mean(
                functional.cross_entropy(light_TE, experts_T, reduction="none"), real_T
            )
            losses["balance"] = self._balance(scores_TE[real_T], experts_T[real_T])
        return SparsePlan.from_choices(
            scores_TE.gather(1, experts_T[:, None]),
            experts_T[:, None],
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=logits_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def after_step(self) -> None:
        """Count the step; the light gate is frozen after the last one of stage 1."""
        self.step += 1
        if self.is_frozen:
            self.words_VZ.requires_grad_(False)
            self.experts_EZ.requires_grad_(False)

    def _ids(self, context: GateContext) -> Tensor:
        assert context.token_ids_BS is not None
        ids_T = context.token_ids_BS.reshape(-1)
        if ids_T.numel() and not 0 <= int(ids_T.min()) <= int(ids_T.max()) < self.vocabulary:
            allowed = f"0 to vocabulary - 1 = {self.vocabulary - 1}"
            raise InputError(sentence("context.token_ids_BS", allowed=allowed, got=int(ids_T.max())))
        return ids_T

    def _balance(self, scores_NE: Tensor, experts_N: Tensor) -> Tensor:
        count_E = torch.bincount(experts_N, minlength=self.num_experts).float()
        mean = (count_E.sum() / self.num_experts).clamp(min=1e-9)
        chosen_N = scores_NE.gather(1, experts_N[:, None])[:, 0]
        total_E = torch.zeros_like(count_E).index_add(0, experts_N, chosen_N)
        return ((count_E - mean) / mean * total_E).sum() / max(len(experts_N), 1)
