from __future__ import annotations

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import NotFittedError
from turnout.nn.adapters import PhatgooseRouter
from turnout.nn.adapters.phatgoose import gate_scores, standardise


def test_scores_do_not_depend_on_the_scale_of_inputs_and_gates() -> None:
    pool = helpers.pool()
    site = next(iter(pool.sites.values()))
    u, context = torch.randn(2, 5, site.in_features), pool.context()
    before = gate_scores(u, site, context)
    for name in pool.names:
        pool.set_gate(name, {path: gate * 1e-4 for path, gate in pool.gate(name).items()})
    torch.testing.assert_close(gate_scores(u * 1e3 + 7, site, context), before, rtol=1e-4, atol=1e-3)
    assert before.std() > 0.1


def test_scores_are_those_of_the_equation() -> None:
    pool = helpers.pool()
    site = next(iter(pool.sites.values()))
    width = site.in_features
    u = torch.randn(4, width)
    norm = torch.nn.LayerNorm(width, elementwise_affine=False)
    expected = norm(u) @ norm(site.gate_ED).T / width**0.5
    torch.testing.assert_close(gate_scores(u, site, pool.context()), expected, rtol=1e-4, atol=1e-4)


def test_a_constant_row_becomes_zero() -> None:
    assert torch.equal(standardise(torch.full((2, 4), 3.0)), torch.zeros(2, 4))


def test_all_kept_is_a_plain_softmax_and_one_kept_is_the_best() -> None:
    pool = helpers.pool()
    site, context = next(iter(pool.sites.values())), pool.context()
    u = torch.randn(2, 5, site.in_features)
    scores = gate_scores(u, site, context)
    every = PhatgooseRouter(top_k=3).weights(u, site, context)
    torch.testing.assert_close(every, torch.softmax(scores, -1), rtol=1e-5, atol=1e-5)
    one = PhatgooseRouter(top_k=1).weights(u, site, context)
    assert torch.equal(one.argmax(-1), scores.argmax(-1))


def test_an_adapter_without_a_gate_is_named() -> None:
    pool = helpers.pool(("a", "b"))
    pool.add(helpers.lora("d", seed=3))
    pool.router = PhatgooseRouter()
    with pytest.raises(NotFittedError, match=r"without a trained gate.*'d'.*train_gate"):
        helpers.logits(pool, helpers.tokens())
