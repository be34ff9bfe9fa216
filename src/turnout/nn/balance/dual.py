"""This module holds the problem that a bias on choice scores solves, with bounds that say how far it is.

    max_x  1/T sum_te s_te x_te   with k experts a token and T k / E tokens an expert

Its Lagrangian with one price per expert, p = -b, falls apart into tokens: each takes the k largest s + b.
What is left is a convex function of b, the dual value; its subgradient is load - target, so that the bias
update is a subgradient step. Source: S190 (arXiv 2512.03915), read in its abstract alone; the equations are
derived in `docs/prices.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import ShapeError, sentence
from turnout.nn.plan import matrix


@dataclass(frozen=True, kw_only=True)
class DualPoint:
    """One bias, judged: all per token, loads as shares of T.

    `value` bounds the best balanced mean score from above, whatever the bias; `score` is the mean score of
    the choice that this bias makes; `violation_E` is load/T - k/E, a subgradient of the value in b.
    """

    value: float
    score: float
    violation_E: Tensor

    @property
    def excess(self) -> float:
        """The greatest |load - target|, as a share of T."""
        return float(self.violation_E.abs().max())


def dual_point(scores_TE: Tensor, bias_E: Tensor, k: int) -> DualPoint:
    """Return the dual value 1/T sum_t topk-sum(s_t + b) - k/E sum_e b_e, and what goes with it."""
    matrix("dual_point: scores_TE", scores_TE)
    num_tokens, num_experts = scores_TE.shape
    if not 1 <= k <= num_experts or bias_E.shape != (num_experts,):
        got = f"k = {k}, bias_E {tuple(bias_E.shape)}"
        raise ShapeError(sentence("dual_point", allowed=f"k <= E = {num_experts}, bias_E (E,)", got=got))
    s_TE, b_E = scores_TE.detach().double(), bias_E.detach().double()
    best_TK, index_TK = (s_TE + b_E).topk(k, dim=-1)
    load_E = torch.bincount(index_TK.flatten(), minlength=num_experts).double()
    return DualPoint(
        value=float(best_TK.sum() / num_tokens - b_E.sum() * k / num_experts),
        score=float(s_TE.gather(1, index_TK).sum() / num_tokens),
        violation_E=load_E / num_tokens - k / num_experts,
    )


def safe_step(point: DualPoint, lower: float) -> float:
    """Return the step u, in score per share of tokens, that is sure to bring the bias nearer to its optimum.

    `lower` is the mean score of any balanced choice. The update b - u violation comes nearer to every optimal
    b as long as 0 < u < 2 (value - best) / |violation|^2 (Polyak, 1969); half of that bound with `lower` in
    the place of the unknown best is returned, so use the best balanced score that is known. Infinity if
    there is no violation left.
    """
    norm = float(point.violation_E.square().sum())
    return (point.value - lower) / norm if norm > 0 else float("inf")
