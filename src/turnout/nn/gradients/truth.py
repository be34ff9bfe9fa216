"""This module enumerates a small routing problem: exact gradients, and how far an estimator is from them.

One token, E experts with fixed outputs f_i, logits z, p = softmax(z). An expert is sampled by p and its
output counts p_i; the loss l is a polynomial of what comes out. The expected loss and its gradient

    J(z) = sum_i p_i l(p_i f_i),   dJ/dz = sum_i dp_i l(p_i f_i) + sum_i p_i dl(p_i f_i)

are sums over E: the first part is what the choice does (`choice`), the second what the weight does
(`weight`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.nn.gradients.score_function import leave_one_out, score_function_loss
from turnout.nn.gradients.sparse_mixer import sparse_mixer
from turnout.nn.gradients.straight_through import gumbel_one_hot


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Expert outputs (E, D), logits (E,), a target (D,), and the strength of the loss's cubic part."""

    outputs_ED: Tensor
    logits_E: Tensor
    target_D: Tensor
    cubic: float = 0.0

    def loss(self, y_ND: Tensor) -> Tensor:
        """Return the loss of outputs, (N,): half a squared distance, and a cubic part."""
        square_N = 0.5 * (y_ND - self.target_D).square().sum(dim=-1)
        return square_N + self.cubic / 6 * y_ND.pow(3).sum(dim=-1)

    def exact(self) -> dict[str, Tensor]:
        """Return the gradients (E,) of the expected loss: `choice`, `weight`, and `total`, their sum."""
        z_E = self.logits_E.clone().requires_grad_()
        p_E = z_E.softmax(dim=-1)
        fixed_E = self.loss(p_E.detach()[:, None] * self.outputs_ED)
        moving_E = self.loss(p_E[:, None] * self.outputs_ED)
        choice = torch.autograd.grad((p_E * fixed_E).sum(), z_E, retain_graph=True)[0]
        weight = torch.autograd.grad((p_E.detach() * moving_E).sum(), z_E)[0]
        return {"choice": choice, "weight": weight, "total": choice + weight}

    def expected(self) -> float:
        """Return the expected loss."""
        p_E = self.logits_E.softmax(dim=-1)
        return float((p_E * self.loss(p_E[:, None] * self.outputs_ED)).sum())


Estimator = Callable[[Problem, Tensor], Tensor]
"""From a problem and logits (N, E), all rows alike, to a scalar whose gradient in row n is the n-th
estimate."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An estimator on one problem, relative to the norm of the exact gradient.

    `bias` is |mean - exact|, `bias_error` its standard error if there were none, `deviation` the root of the
    summed variances of one sample, `cosine` that between the mean and the exact gradient.
    """

    bias: float
    bias_error: float
    deviation: float
    cosine: float


def judge(
    problem: Problem, estimator: Estimator, *, part: str = "total", num_samples: int = 20_000
) -> Judged:
    """Return bias and variance of an estimator against a part of the exact gradient."""
    exact_E = problem.exact()[part]
    z_NE = problem.logits_E.expand(num_samples, -1).clone().requires_grad_()
    (sample_NE,) = torch.autograd.grad(estimator(problem, z_NE), z_NE)
    mean_E, norm = sample_NE.mean(dim=0), float(exact_E.norm())
    variance = float(sample_NE.var(dim=0).sum())
    return Judged(
        bias=float((mean_E - exact_E).norm()) / norm,
        bias_error=(variance / num_samples) ** 0.5 / norm,
        deviation=variance**0.5 / norm,
        cosine=float(torch.nn.functional.cosine_similarity(mean_E, exact_E, dim=0)),
    )


def top_one(problem: Problem, z_NE: Tensor) -> Tensor:
    """Always the best expert; the gradient goes through its weight alone, as in Switch."""
    p_NE = z_NE.softmax(dim=-1)
    best_N = p_NE.argmax(dim=-1)
    return problem.loss(_weighted(problem, p_NE, best_N)).sum()


def sampled(problem: Problem, z_NE: Tensor) -> Tensor:
    """A sampled expert; the gradient goes through its weight alone."""
    p_NE = z_NE.softmax(dim=-1)
    return problem.loss(_weighted(problem, p_NE, _draw(p_NE))).sum()


def reinforce(problem: Problem, z_NE: Tensor) -> Tensor:
    """A sampled expert, with the score function of the choice."""
    return _reinforced(problem, z_NE, 0.0)


def reinforce_with_baseline(problem: Problem, z_NE: Tensor) -> Tensor:
    """The same with the expected loss as its baseline, which a learned one can at best become."""
    return _reinforced(problem, z_NE, problem.expected())


def reinforce_leave_one_out(problem: Problem, z_NE: Tensor, *, draws: int = 4) -> Tensor:
    """Several samples of a token, each with the mean loss of the others as its baseline."""
    z_MNE = z_NE[:, None].expand(-1, draws, -1)
    p_ME = z_MNE.softmax(dim=-1).flatten(0, 1)
    pick_M = _draw(p_ME)
    loss_M = problem.loss(_weighted(problem, p_ME, pick_M))
    baseline_M = leave_one_out(loss_M.view(-1, draws)).flatten()
    log_M = p_ME.gather(1, pick_M[:, None])[:, 0].log()
    return (score_function_loss(log_M, loss_M, baseline_M) + loss_M.sum()) / draws


def straight_through_gumbel(problem: Problem, z_NE: Tensor, *, temperature: float = 1.0) -> Tensor:
    """A sampled expert whose one-hot choice has the gradient of a Gumbel softmax."""
    hard_NE = gumbel_one_hot(z_NE, temperature=temperature)
    return problem.loss((hard_NE * z_NE.softmax(dim=-1)) @ problem.outputs_ED).sum()


def sparse_mixer_v2(problem: Problem, z_NE: Tensor) -> Tensor:
    """GRIN's estimator with no expert closed."""
    weights_N1, indices_N1 = sparse_mixer(z_NE, 1, jitter=float("inf"))
    return problem.loss(weights_N1 * problem.outputs_ED[indices_N1[:, 0]]).sum()


ESTIMATORS: dict[str, Estimator] = {
    "top 1": top_one,
    "sampled": sampled,
    "REINFORCE": reinforce,
    "REINFORCE, baseline": reinforce_with_baseline,
    "REINFORCE, leave one out of 4": reinforce_leave_one_out,
    "straight-through Gumbel": straight_through_gumbel,
    "SparseMixer v2": sparse_mixer_v2,
}
"""All that estimate one problem's gradient, by name."""


def _weighted(problem: Problem, p_NE: Tensor, pick_N: Tensor) -> Tensor:
    return p_NE.gather(1, pick_N[:, None]) * problem.outputs_ED[pick_N]


def _draw(p_NE: Tensor) -> Tensor:
    return torch.multinomial(p_NE.detach(), 1)[:, 0]


def _reinforced(problem: Problem, z_NE: Tensor, baseline: float) -> Tensor:
    p_NE = z_NE.softmax(dim=-1)
    pick_N = _draw(p_NE)
    loss_N = problem.loss(_weighted(problem, p_NE, pick_N))
    log_N = p_NE.gather(1, pick_N[:, None])[:, 0].log()
    return score_function_loss(log_N, loss_N, baseline) + loss_N.sum()
