from __future__ import annotations

import pytest
import torch

from turnout.core.errors import ShapeError
from turnout.nn.balance.switch import balance_loss
from turnout.nn.balance.variance import cv_squared, importance_loss, load_loss, smooth_load
from turnout.nn.balance.z_loss import z_loss


def test_cv_by_hand() -> None:
    assert float(cv_squared(torch.ones(5))) == 0.0
    assert float(cv_squared(torch.tensor([0.0, 4.0]))) == pytest.approx(1.0)


def test_importance_is_of_sums_of_weights_and_ignores_padding() -> None:
    weights_TE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    assert float(importance_loss(weights_TE, mask_T=torch.tensor([True, True, False]))) == 0.0
    assert float(importance_loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))) == pytest.approx(1.0)


def test_smooth_load_is_the_chance_when_one_noise_is_drawn_again() -> None:
    clean_TE, deviation_TE = torch.randn(3, 5), torch.rand(3, 5) + 0.3
    noisy_TE = clean_TE + deviation_TE * torch.randn(3, 5)
    found_TE = smooth_load(clean_TE, noisy_TE, deviation_TE, 2)
    draws = 20_000
    for t in range(3):
        for e in range(5):
            again = noisy_TE[t].repeat(draws, 1)
            again[:, e] = clean_TE[t, e] + deviation_TE[t, e] * torch.randn(draws)
            share = (again.topk(2)[1] == e).any(-1).double().mean()
            assert float(found_TE[t, e]) == pytest.approx(float(share), abs=0.02)


def test_the_load_loss_has_a_gradient_where_counts_have_none() -> None:
    clean_TE = torch.randn(64, 4, requires_grad=True)
    noisy_TE = clean_TE + torch.randn(64, 4)
    load_loss(clean_TE, noisy_TE, torch.ones(64, 4), 1).backward()
    assert clean_TE.grad is not None
    assert bool(clean_TE.grad.any())
    with pytest.raises(ShapeError, match="k < E"):
        smooth_load(clean_TE, noisy_TE, torch.ones(64, 4), 4)


def test_z_loss_is_zero_for_normalised_logits_and_ignores_padding() -> None:
    assert float(z_loss(torch.randn(10, 6).log_softmax(-1))) == pytest.approx(0.0, abs=1e-10)
    logits_TE = torch.tensor([[0.0, 0.0], [50.0, 50.0]])
    expected = torch.tensor(2.0).log().square()
    assert float(z_loss(logits_TE, mask_T=torch.tensor([True, False]))) == pytest.approx(float(expected))
    assert float(z_loss(logits_TE[:0])) == 0.0


def test_nan_at_padding_reaches_no_loss_and_no_gradient() -> None:
    mask_T = torch.arange(12) < 9
    losses = {
        "balance": lambda z, m: balance_loss(z.softmax(-1), z > 0, mask_T=m),
        "sigmoid": lambda z, m: balance_loss(z.sigmoid(), z > 0, kind="sigmoid", mask_T=m),
        "z": lambda z, m: z_loss(z, mask_T=m),
        "importance": lambda z, m: importance_loss(z.softmax(-1), mask_T=m),
        "load": lambda z, m: load_loss(z, z + 0.1, torch.ones_like(z), 2, mask_T=m),
    }
    for name, loss in losses.items():
        z_TE = torch.randn(12, 5)
        z_TE[9:] = torch.nan
        z_TE.requires_grad_()
        found = loss(z_TE, mask_T)
        (slope_TE,) = torch.autograd.grad(found, z_TE)
        assert torch.allclose(found, loss(z_TE[:9], None)), name
        assert bool(slope_TE[:9].isfinite().all()), name
