from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.nn.adapters import helpers
from turnout.nn.adapters.linear import mix, mix_loop


@pytest.mark.parametrize("leading", [(7,), (2, 5), (1, 1), (0, 3)])
def test_the_two_products_equal_the_loop_in_values_and_gradients(leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    num, rank, width, outputs = 5, 3, 8, 6
    leaves = [
        torch.randn(*leading, width),
        torch.rand(*leading, num),
        torch.randn(num, rank, width),
        torch.randn(num, outputs, rank),
        torch.rand(num),
    ]
    found = []
    for function in (mix, mix_loop):
        inputs = [leaf.double().requires_grad_() for leaf in leaves]
        out = function(*inputs)
        assert out.shape == (*leading, outputs)
        found.append((out, *torch.autograd.grad(out.pow(2).sum(), inputs)))
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow)


def test_one_weight_for_all_tokens_broadcasts() -> None:
    torch.manual_seed(0)
    u, w = torch.randn(2, 4, 8), torch.rand(2, 1, 3)
    a, b, scale = torch.randn(3, 2, 8), torch.randn(3, 6, 2), torch.rand(3)
    whole = mix(u, w.expand(2, 4, 3), a, b, scale)
    torch.testing.assert_close(mix(u, w, a, b, scale), whole)
    torch.testing.assert_close(mix_loop(u, w, a, b, scale), whole)


def test_a_whole_model_agrees_with_its_slow_twin() -> None:
    from turnout.nn.adapters import PhatgooseRouter

    ids = helpers.tokens()
    outputs, gradients = [], []
    for execution in ("fast", "loop"):
        pool = helpers.pool(execution=execution)
        with pool.routed(router=PhatgooseRouter(top_k=2)):
            loss = pool.model(ids, labels=ids).loss
            outputs.append(pool.model(ids).logits.detach())
        loss.backward()
        gradients.append([p.grad for p in pool.model.parameters()])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_the_state_dict_is_that_of_the_base() -> None:
    pool = helpers.pool()
    plain = helpers.base().state_dict()
    assert list(pool.model.state_dict()) == list(plain)
    assert all(torch.equal(value, plain[key]) for key, value in pool.model.state_dict().items())
    assert all(isinstance(site, nn.Linear) for site in pool.sites.values())


def test_a_half_precision_base_keeps_adapters_in_float32() -> None:
    from turnout.nn.adapters import AdapterPool

    pool = AdapterPool(model=helpers.base().to(torch.bfloat16))
    pool.add(helpers.lora("a"), is_same_base=True)
    site = next(iter(pool.sites.values()))
    assert site.a_ERD.dtype == torch.float32
    with pool.only("a"):
        assert helpers.logits(pool, helpers.tokens()).dtype == torch.bfloat16
