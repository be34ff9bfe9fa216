from __future__ import annotations

import math

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.speech import SpeechMoEGate, mean_importance_loss, sparsity_loss

X_TD = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


def above(gate: SpeechMoEGate, x_TD: torch.Tensor, state_TH: torch.Tensor, layer: int):
    return gate(x_TD, GateContext(layer=layer, num_layers=3, state=state_TH))


def test_every_layer_reads_the_same_embedding_and_its_own_state() -> None:
    gate = SpeechMoEGate(width=8, num_experts=4, num_layers=3, hidden=6)
    first = gate(X_TD)
    embedding_TH = (X_TD @ gate.in_HD.T).relu() @ gate.out_HH.T
    assert torch.allclose(first.state, embedding_TH, atol=1e-6)
    state_TH = first.state
    for layer in (1, 2):
        x_TD = torch.randn(40, 8)
        plan = above(gate, x_TD, state_TH, layer)
        expected = torch.cat([embedding_TH, x_TD], 1) @ gate.weight_LEJ[layer].T
        assert torch.allclose(plan.logits_TE, expected, atol=1e-5)
        # It is handed on unchanged, whatever the layer saw.
        assert torch.equal(plan.state, state_TH)
        assert not torch.allclose(plan.logits_TE, above(gate, x_TD, -state_TH, layer).logits_TE)
        state_TH = plan.state


def test_one_expert_weighted_by_its_probability() -> None:
    plan = SpeechMoEGate(width=8, num_experts=4)(X_TD)
    assert plan.num_pairs == 40
    assert torch.allclose(plan.to_dense().sum(1), plan.scores_TE.max(1)[0])


def test_the_losses_at_their_ends() -> None:
    one, even = torch.eye(4)[[0, 1, 2, 3]], torch.full((4, 4), 0.25)
    assert float(sparsity_loss(one)) == pytest.approx(1.0)
    assert float(sparsity_loss(even)) == pytest.approx(2.0)
    assert float(sparsity_loss(torch.tensor([[0.6, 0.8]]) / 1.4)) == pytest.approx(1.4)
    assert float(mean_importance_loss(one)) == pytest.approx(1.0)
    assert float(mean_importance_loss(one[[0, 0, 0]])) == pytest.approx(4.0)
    mask_T = torch.tensor([True, True, False, False])
    for loss in (sparsity_loss, mean_importance_loss):
        halves = torch.cat([one[:2], even[:2]])
        assert float(loss(halves, mask_T=mask_T)) == pytest.approx(float(loss(one[:2])))


def test_the_losses_make_choices_sure_and_even() -> None:
    gate = SpeechMoEGate(width=8, num_experts=4, num_layers=1, hidden=16)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    for _ in range(150):
        losses = gate(X_TD).losses
        optimizer.zero_grad()
        (losses["sparsity"] + losses["importance"]).backward()
        optimizer.step()
    losses = gate.requires_grad_(requires_grad=False)(X_TD).losses
    assert float(losses["sparsity"]) < 1.1 < math.sqrt(4)
    assert float(losses["importance"]) < 1.05
    assert int(gate(X_TD).counts_E.max()) <= 13


def test_a_layer_without_an_embedding_is_refused() -> None:
    gate = SpeechMoEGate(width=8, num_experts=4, num_layers=2, hidden=6)
    with pytest.raises(InputError, match="in layer 1"):
        gate(X_TD, GateContext(layer=1))
    with pytest.raises(InputError, match="num_layers - 1 = 1"):
        gate(X_TD, GateContext(layer=2))
    with pytest.raises(ShapeError, match="H = 6"):
        above(gate, X_TD, torch.zeros(40, 5), 1)


def test_every_layer_teaches_the_embedding() -> None:
    gate = SpeechMoEGate(width=8, num_experts=4, num_layers=3, hidden=6)
    state_TH = gate(X_TD).state
    for layer in (1, 2):
        plan = above(gate, X_TD, state_TH, layer)
        slopes = torch.autograd.grad(
            plan.logits_TE.square().sum(), [gate.in_HD, gate.out_HH], retain_graph=True
        )
        assert all(bool(slope.abs().max() > 1e-3) for slope in slopes)
        state_TH = plan.state
