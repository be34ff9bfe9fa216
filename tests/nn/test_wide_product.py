"""Half states times a weight of single precision, to the digits of single precision."""

from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.wide_product import PARTS, in_parts, wide_product


def test_parts_add_up_to_every_bit() -> None:
    value_ED = torch.randn(40, 50) * torch.logspace(-6, 6, 50)
    parts = in_parts(value_ED)
    assert [part.dtype for part in parts] == [torch.bfloat16] * PARTS
    assert torch.equal(torch.stack(parts).double().sum(0), value_ED.double())
    assert not torch.equal(torch.stack(parts[:2]).double().sum(0), value_ED.double())
    half = value_ED.bfloat16()
    assert in_parts(half)[0] is half


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_are_those_of_double_precision(dtype) -> None:
    x_TD, weight_ED = torch.randn(33, 64).bfloat16(), (torch.randn(8, 64) * 0.02).to(dtype)
    factor_TE, found = torch.randn(33, 8), []
    for exact in (torch.float32, torch.float64):
        x, weight = (part.clone().requires_grad_() for part in (x_TD, weight_ED))
        is_ours = exact == torch.float32
        y_TE = wide_product(x, weight) if is_ours else x.to(exact) @ weight.to(exact).T
        found.append((y_TE.detach(), *torch.autograd.grad((y_TE * factor_TE).sum(), (x, weight))))
    (y_TE, dx_TD, dweight_ED), expected = found
    assert y_TE.dtype == torch.float32
    for value, right, digits in (
        (y_TE, expected[0], 1e-6),
        (dx_TD, expected[1], 2**-8),
        (dweight_ED, expected[2], 2**-8 if dtype == torch.bfloat16 else 1e-6),
    ):
        size = float(right.abs().max())
        assert float((value.double() - right.double()).abs().max()) <= digits * size


def test_a_penalty_on_a_gradient_is_refused_and_does_not_add_nothing() -> None:
    x_TD, weight_ED = torch.randn(5, 8).bfloat16().requires_grad_(), torch.randn(3, 8, requires_grad=True)
    logits_TE = wide_product(x_TD, weight_ED)
    (dx_TD,) = torch.autograd.grad(logits_TE.sum(), x_TD, create_graph=True)
    with pytest.raises(InputError, match=r"of a gate was differentiated.*states of single precision"):
        dx_TD.float().square().sum().backward()
