from __future__ import annotations

import pytest
import torch
from torch import nn

from turnout.core.errors import ShapeError
from turnout.nn.gates.upcycled import UpcycledGate

X_TD = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_sum_over_heads_of_queries_and_keys() -> None:
    gate = UpcycledGate(width=8, num_experts=5, heads=3, size=4)
    by_hand = torch.zeros(30, 5)
    for head in range(3):
        by_hand += (X_TD @ gate.query_HZD[head].T) @ gate.key_HEZ[head].T / 2
    assert torch.allclose(gate(X_TD).logits_TE, by_hand, atol=1e-5)


def test_its_queries_are_those_of_the_attention_before() -> None:
    gate, projection = UpcycledGate(width=8, num_experts=5, heads=2, size=4), nn.Linear(8, 16, bias=False)
    gate.load_queries(projection.weight)
    query_HTZ = X_TD @ gate.query_HZD.transpose(1, 2)
    theirs = projection(X_TD).view(30, 4, 4).transpose(0, 1)
    assert torch.allclose(query_HTZ, theirs[:2], atol=1e-6)
    with pytest.raises(ShapeError, match="8 or more, D"):
        gate.load_queries(projection.weight[:7])


def test_the_order_of_heads_does_not_matter() -> None:
    gate, other = (UpcycledGate(width=8, num_experts=5, heads=3, size=4) for _ in range(2))
    with torch.no_grad():
        other.query_HZD.copy_(gate.query_HZD[[2, 0, 1]])
        other.key_HEZ.copy_(gate.key_HEZ[[2, 0, 1]])
    assert torch.allclose(gate(X_TD).to_dense(), other(X_TD).to_dense(), atol=1e-6)
