from __future__ import annotations

import torch

from turnout.nn.gates.sparse_mixer import SparseMixerGate
from turnout.nn.gradients.sparse_mixer import sparse_mixer

X_TD = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))


def test_training_samples_among_the_near_and_eval_takes_the_best() -> None:
    gate = SparseMixerGate(width=2, num_experts=3, k=1, jitter=0.3)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.tensor([[1.0, 0.0], [0.8, 0.0], [-1.0, 0.0]]))
    x_TD = torch.tensor([[1.0, 0.0]]).repeat(4000, 1)
    torch.manual_seed(0)
    shares_E = gate(x_TD).counts_E / 4000
    near = torch.tensor([1.0, 0.8]).softmax(0)
    assert torch.allclose(shares_E, torch.tensor([near[0], near[1], 0.0]), atol=0.03)
    assert gate.eval()(x_TD).counts_E.tolist() == [4000, 0, 0]


def test_weights_and_gradients_are_those_of_the_estimator() -> None:
    gate = SparseMixerGate(width=8, num_experts=4, k=2, jitter=0.5)
    torch.manual_seed(3)
    plan = gate(X_TD)
    logits_TE = (X_TD @ gate.weight_ED.detach().T).requires_grad_()
    torch.manual_seed(3)
    weights_TK, indices_TK = sparse_mixer(logits_TE, 2, jitter=0.5)
    ours_TK, chosen_TK, _ = plan.to_choices()
    assert torch.equal(chosen_TK, indices_TK)
    assert torch.allclose(ours_TK, weights_TK)
    ours_TK.square().sum().backward()
    weights_TK.square().sum().backward()
    assert logits_TE.grad is not None
    assert gate.weight_ED.grad is not None
    assert torch.allclose(gate.weight_ED.grad, logits_TE.grad.T @ X_TD, atol=1e-4)


def test_weights_are_not_divided_by_their_sum() -> None:
    sums_T = SparseMixerGate(width=8, num_experts=4, jitter=0.5).eval()(X_TD).to_dense().sum(1)
    assert sums_T.std() > 1e-3
