from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.sam import SAMGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))


def test_all_experts_of_a_token_stand_in_its_best_group() -> None:
    torch.manual_seed(0)
    gate, rival = SAMGate(width=8, num_experts=8, k=2, num_groups=4), TopKGate(width=8, num_experts=8)
    groups_TK = gate(X_TD).to_choices()[1] // 2
    best_T = (X_TD @ gate.group_GD.T).argmax(1)
    assert torch.equal(groups_TK, best_T[:, None].expand(60, 2))
    assert bool((rival(X_TD).to_choices()[1] // 2).diff(dim=1).any())


def test_weights_are_the_product_of_both_probabilities() -> None:
    gate = SAMGate(width=8, num_experts=8, k=4, num_groups=2)
    plan = gate(X_TD)
    p_TG = (X_TD @ gate.group_GD.T).softmax(1)
    # All experts of the group are taken: what is left is the probability of the group.
    assert torch.allclose(plan.to_dense().sum(1), p_TG.amax(1))
    assert torch.allclose(plan.scores_TE.sum(1), torch.ones(60))


def test_balance_is_two_when_groups_and_experts_are_even() -> None:
    gate = SAMGate(width=4, num_experts=4, k=1, num_groups=2)
    with torch.no_grad():
        gate.group_GD.copy_(torch.tensor([[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0]]))
        gate.weight_ED.copy_(torch.eye(4) * 30)
    even, uneven = torch.eye(4) * 5, torch.eye(4)[[0, 0, 0, 0]] * 5
    assert torch.allclose(gate(even).losses["balance"], torch.tensor(2.0), atol=1e-3)
    assert gate(uneven).losses["balance"] > 2.9


def test_groups_that_do_not_fit_are_refused() -> None:
    for k, groups in ((2, 3), (3, 4)):
        with pytest.raises(InputError, match="num_groups \\* size"):
            SAMGate(width=8, num_experts=8, k=k, num_groups=groups)
