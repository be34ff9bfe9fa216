from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.recurrent import RecurrentGate

X_TD = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))


def test_a_layer_remembers_what_the_layer_below_saw() -> None:
    gate = RecurrentGate(width=8, num_experts=4, num_layers=2, hidden=16)
    below, other = gate(X_TD), gate(-X_TD)
    same_state = [gate(X_TD, GateContext(layer=1, num_layers=2, state=p.state)) for p in (below, other)]
    assert not torch.allclose(same_state[0].logits_TE, same_state[1].logits_TE)
    again = gate(X_TD, GateContext(layer=1, num_layers=2, state=gate(X_TD).state))
    assert torch.equal(again.logits_TE, same_state[0].logits_TE)


def test_it_is_the_gru_of_torch_with_projections_by_layer() -> None:
    gate = RecurrentGate(width=8, num_experts=4, num_layers=3, hidden=16)
    state_TH = torch.zeros(20, 16)
    context = GateContext(num_layers=3)
    for layer in range(3):
        plan = gate(X_TD, GateContext(layer=layer, num_layers=3, state=context.state))
        state_TH = gate.cell(X_TD @ gate.in_LHD[layer].T, state_TH)
        assert torch.allclose(plan.state, state_TH, atol=1e-6)
        assert torch.allclose(plan.logits_TE, state_TH @ gate.out_LEH[layer].T, atol=1e-5)
        context = GateContext(state=plan.state)


def test_each_token_has_a_memory_of_its_own() -> None:
    gate = RecurrentGate(width=8, num_experts=4, hidden=16)
    state_TH = torch.randn(20, 16)
    changed_TH = state_TH.clone()
    changed_TH[3] += 1
    one, other = (gate(X_TD, GateContext(layer=1, state=s)).logits_TE for s in (state_TH, changed_TH))
    assert (one != other).any(1).nonzero().flatten().tolist() == [3]


def test_a_layer_or_a_state_that_it_does_not_know_is_refused() -> None:
    gate = RecurrentGate(width=8, num_experts=4, num_layers=2, hidden=16)
    with pytest.raises(InputError, match="num_layers - 1 = 1"):
        gate(X_TD, GateContext(layer=2))
    with pytest.raises(ShapeError, match="H = 16"):
        gate(X_TD, GateContext(layer=1, state=torch.zeros(20, 15)))


def test_layers_above_teach_the_memory_of_those_below() -> None:
    gate = RecurrentGate(width=8, num_experts=4, num_layers=3, hidden=16)
    plan, expected_TH = gate(X_TD), gate.cell(X_TD @ gate.in_LHD[0].T, torch.zeros(20, 16))
    for layer in (1, 2):
        plan = gate(X_TD, GateContext(layer=layer, num_layers=3, state=plan.state))
        expected_TH = gate.cell(X_TD @ gate.in_LHD[layer].T, expected_TH)
    found = torch.autograd.grad(plan.logits_TE.square().sum(), gate.in_LHD)[0]
    slow = torch.autograd.grad((expected_TH @ gate.out_LEH[2].T).square().sum(), gate.in_LHD)[0]
    assert all(bool(part.abs().max() > 1e-4) for part in found)
    assert torch.allclose(found, slow, rtol=1e-3, atol=1e-4)
