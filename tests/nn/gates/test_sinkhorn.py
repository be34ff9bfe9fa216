from __future__ import annotations

import pytest
import torch

from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.gates.sinkhorn import SinkhornGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + torch.eye(8)[0] * 3


def drawn(**setting: float) -> SinkhornGate:
    gate = SinkhornGate(width=8, num_experts=4, k=1, **setting)  # type: ignore[arg-type]
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(8)[:4])
    return gate


def test_a_transport_step_has_even_mass_and_a_softmax_has_not() -> None:
    plan = drawn(chance=1.0, temperature=0.2)(X_TD)
    assert plan.scores_TE is not None
    assert torch.allclose(plan.scores_TE.sum(0), torch.full((4,), 16.0), rtol=1e-3)
    assert torch.allclose(plan.scores_TE.sum(1), torch.ones(64), atol=1e-5)
    assert plan.counts_E.max() < 24
    assert drawn(chance=0.0)(X_TD).counts_E.max() > 50


def test_in_eval_mode_it_is_the_softmax_rule() -> None:
    gate, rule = SinkhornGate(width=8, num_experts=4, chance=1.0), TopKGate(width=8, num_experts=4)
    rule.load_state_dict(gate.state_dict())
    assert torch.allclose(gate.eval()(X_TD).to_dense(), rule(X_TD).to_dense())


def test_the_share_of_transport_steps_is_the_chance() -> None:
    gate = drawn(chance=0.3)
    torch.manual_seed(0)
    even = [int(gate(X_TD).counts_E.max()) < 40 for _ in range(200)]
    assert 40 <= sum(even) <= 80


def test_gradients_flow_through_the_iterations() -> None:
    gate = drawn(chance=1.0)
    scores_TE = gate(X_TD).scores_TE
    assert scores_TE is not None
    # One token's share: with a softmax no other token could move it.
    (slope_ED,) = torch.autograd.grad(scores_TE[0, 1], gate.weight_ED)
    own_ED = torch.zeros(4, 8).index_add(0, torch.arange(4), slope_ED)
    along = X_TD[0] / X_TD[0].norm()
    assert (own_ED - (own_ED @ along)[:, None] * along).norm() > 1e-3


def test_the_transport_is_as_sharp_as_its_temperature_says() -> None:
    for temperature in (0.2, 2.0):
        gate = drawn(chance=1.0, temperature=temperature)
        expected_TE = sinkhorn(X_TD @ gate.weight_ED.T, temperature=temperature)
        assert torch.allclose(gate(X_TD).scores_TE, expected_TE, atol=1e-5)


def test_the_other_steps_have_the_noise_that_was_asked_for() -> None:
    gate = drawn(chance=0.0, noise=0.5)
    with torch.no_grad():
        plan = gate(X_TD)
    added_TE = plan.scores_TE.log() - plan.logits_TE.log_softmax(-1)
    # A softmax knows differences alone: those of two experts have the noise of both.
    assert float((added_TE[:, 1:] - added_TE[:, :1]).std()) == pytest.approx(0.5 * 2**0.5, rel=0.25)
    assert torch.equal(gate.eval()(X_TD).scores_TE, plan.logits_TE.softmax(-1))
