from __future__ import annotations

import math

import torch

from turnout.nn.gates.top_p import TopPGate

X_TD = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))


def counts(p: float) -> torch.Tensor:
    torch.manual_seed(0)
    gate = TopPGate(width=8, num_experts=6, p=p)
    with torch.no_grad():
        gate.weight_ED.mul_(40)
    return (gate(X_TD).to_dense() > 0).sum(1)


def test_all_experts_at_one_and_a_single_one_near_zero() -> None:
    assert counts(1.0).tolist() == [6] * 200
    assert counts(1e-6).tolist() == [1] * 200


def test_more_experts_with_p_and_for_unsure_tokens() -> None:
    few, some, many = counts(0.3), counts(0.6), counts(0.9)
    assert bool((few <= some).all())
    assert bool((some <= many).all())
    assert some.unique().numel() > 2


def test_the_fewest_that_exceed_p_are_taken_with_their_probabilities() -> None:
    gate = TopPGate(width=3, num_experts=3, p=0.6)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(3))
    x_TD = torch.tensor([[math.log(5), math.log(3), math.log(2)], [math.log(7), math.log(2), math.log(1)]])
    weights_TE = gate(x_TD).to_dense()
    assert torch.allclose(weights_TE, torch.tensor([[0.5, 0.3, 0.0], [0.7, 0.0, 0.0]]))


def test_the_entropy_is_in_nats() -> None:
    gate = TopPGate(width=8, num_experts=6)
    with torch.no_grad():
        gate.weight_ED.zero_()
    assert torch.allclose(gate(X_TD).losses["entropy"], torch.tensor(math.log(6)))
