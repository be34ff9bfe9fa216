from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.rex import RexGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))


def used(gate: RexGate, layer: int) -> list[int]:
    return gate(X_TD, GateContext(layer=layer, num_layers=4)).counts_E.nonzero().flatten().tolist()


def test_each_layer_begins_with_its_own_experts_and_ends_with_the_pool() -> None:
    gate = RexGate(width=8, num_experts=8, k=2, layers=2, start=2, full=6)
    found = []
    for _ in range(8):
        found.append((gate.num_open, used(gate, 0), used(gate, 1)))
        gate.after_step()
    assert [count for count, _, _ in found] == [4, 4, 4, 5, 6, 7, 8, 8]
    assert found[0][1:] == ([0, 1, 2, 3], [4, 5, 6, 7])
    # The next neighbour first, around the pool.
    assert found[3][1:] == ([0, 1, 2, 3, 4], [0, 4, 5, 6, 7])
    assert found[-1][1] == found[-1][2] == list(range(8))


def test_layers_of_the_next_group_begin_anew() -> None:
    gate = RexGate(width=8, num_experts=8, layers=2)
    assert used(gate, 2) == used(gate, 0)
    assert used(gate, 3) == used(gate, 1)
    assert not set(used(gate, 2)) & set(used(gate, 3))


def test_an_open_pool_is_the_softmax_rule_and_closed_experts_have_no_score() -> None:
    gate, plain = RexGate(width=8, num_experts=8, start=0, full=0), TopKGate(width=8, num_experts=8)
    plain.weight_ED.data.copy_(gate.weight_ED.data)
    assert torch.allclose(gate(X_TD).to_dense(), plain(X_TD).to_dense(), atol=1e-6)
    closed = RexGate(width=8, num_experts=8)(X_TD)
    assert not closed.scores_TE[:, 4:].any()
    assert torch.allclose(closed.scores_TE.sum(1), torch.ones(200))


def test_a_pool_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="layers \\* own"):
        RexGate(width=8, num_experts=8, layers=3)
    with pytest.raises(InputError, match="at least 10"):
        RexGate(width=8, num_experts=8, start=10, full=5)
