from __future__ import annotations

import math

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.balance.dirichlet import beta_cdf, prior_loss


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_distribution_function_in_its_closed_forms() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    for a in (0.2, 1.0, 7.5):
        assert torch.allclose(beta_cdf(x, numbers(a), numbers(1.0)), x**a, atol=1e-11)
        assert torch.allclose(beta_cdf(x, numbers(1.0), numbers(a)), 1 - (1 - x) ** a, atol=1e-11)
    arcsine = 2 / math.pi * x.sqrt().asin()
    assert torch.allclose(beta_cdf(x, numbers(0.5), numbers(0.5)), arcsine, atol=1e-11)
    # Of whole numbers it is a sum of binomial terms.
    terms = [math.comb(29, j) * x**j * (1 - x) ** (29 - j) for j in range(12, 30)]
    assert torch.allclose(beta_cdf(x, numbers(12.0), numbers(18.0)), torch.stack(terms).sum(0), atol=1e-11)


def test_its_gradient_is_the_density() -> None:
    x = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(beta_cdf(x, numbers(0.7), numbers(3.0)).sum(), x)
    step = 1e-6
    both = [beta_cdf(x.detach() + s, numbers(0.7), numbers(3.0)) for s in (step, -step)]
    assert torch.allclose(found, (both[0] - both[1]) / (2 * step), rtol=1e-6)
    ends = torch.tensor([0.0, 1.0], requires_grad=True)
    (found,) = torch.autograd.grad(beta_cdf(ends, numbers(0.5), numbers(0.5)).sum(), ends)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("alpha", [(1.0, 1.0, 1.0), (0.3, 0.75, 4.0)])
def test_scores_of_the_prior_have_the_loss_that_theory_says_and_others_have_more(alpha: tuple) -> None:
    alpha_E = torch.tensor(alpha)
    drawn = torch.distributions.Dirichlet(alpha_E)
    losses = [float(prior_loss(drawn.sample((200,)), alpha_E)) for _ in range(100)]
    assert sum(losses) / 100 == pytest.approx(3 / (6 * 201), rel=0.15)
    other = torch.distributions.Dirichlet(alpha_E * 3).sample((200,))
    assert float(prior_loss(other, alpha_E)) > 8 * 3 / (6 * 201)
    assert float(prior_loss(torch.full((200, 3), 1 / 3), alpha_E)) > 8 * 3 / (6 * 201)


def test_descent_makes_scores_those_of_the_prior() -> None:
    alpha_E = torch.tensor([0.5, 0.5, 1.0])
    logits_TE = torch.nn.Parameter(0.1 * torch.randn(256, 3))
    optimizer = torch.optim.Adam([logits_TE], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        prior_loss(logits_TE.softmax(-1), alpha_E).backward()
        optimizer.step()
    p_TE = logits_TE.detach().softmax(-1)
    share = alpha_E / 2
    assert torch.allclose(p_TE.mean(0), share, atol=0.02)
    # The variance of Beta(a, A - a) with A = 2.
    assert torch.allclose(p_TE.var(0), share * (1 - share) / 3, atol=0.01)


def test_padding_counts_nowhere_and_what_makes_no_prior_is_refused() -> None:
    scores_TE, mask_T = torch.rand(10, 3).softmax(-1), torch.arange(10) < 6
    alone = prior_loss(scores_TE[:6], torch.ones(3))
    assert float(prior_loss(scores_TE, torch.ones(3), mask_T=mask_T)) == pytest.approx(float(alone))
    assert float(prior_loss(scores_TE[:0], torch.ones(3))) == 0.0
    with pytest.raises(ShapeError, match="E >= 2"):
        prior_loss(scores_TE, torch.ones(2))
    with pytest.raises(InputError, match="above 0"):
        prior_loss(scores_TE, torch.tensor([1.0, 0.0, 1.0]))


def test_scores_at_the_expected_places_of_uniform_numbers_have_no_loss() -> None:
    """The i-th of N uniform numbers is expected at i / (N + 1); (1, 1) is the uniform prior."""
    place_N = torch.arange(1, 4, dtype=torch.double) / 4
    scores_NE = torch.stack([place_N, 1 - place_N], dim=1)
    assert float(prior_loss(scores_NE, torch.ones(2))) == pytest.approx(0.0, abs=1e-12)
