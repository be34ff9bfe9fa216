from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.stable import StableGate

IDS_BS = torch.arange(12).repeat(20)[None]
WORDS_VD = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
X_TD = WORDS_VD[IDS_BS[0]] + 0.01 * torch.randn(240, 8, generator=torch.Generator().manual_seed(1))
CONTEXT = GateContext(token_ids_BS=IDS_BS)


def experts(gate: StableGate, x_TD: torch.Tensor) -> torch.Tensor:
    plan = gate(x_TD, CONTEXT)
    return plan.experts_N[plan.tokens_N.argsort()]


def test_the_choice_is_handed_on_to_the_tokens_name_and_never_moves_again() -> None:
    torch.manual_seed(0)
    gate = StableGate(width=8, num_experts=4, vocabulary=12, steps=150)
    optimizer = torch.optim.Adam([gate.words_VZ, gate.experts_EZ], lr=0.05)
    learned = experts(gate, X_TD)
    for _ in range(150):
        loss = gate(X_TD, CONTEXT).losses["distil"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gate.after_step()
    assert gate.is_frozen
    assert float((experts(gate, X_TD) == learned).float().mean()) > 0.95
    frozen = experts(gate, X_TD)
    # Neither other states nor other centroids move it: the token's name decides.
    with torch.no_grad():
        gate.weight_ED.neg_()
    assert torch.equal(experts(gate, -X_TD), frozen)
    assert not gate.words_VZ.requires_grad
    assert gate(X_TD, CONTEXT).losses == {}


def test_the_weight_is_the_sigmoid_of_the_centroids_score_in_both_stages() -> None:
    gate = StableGate(width=8, num_experts=4, vocabulary=12, steps=1)
    for _ in range(2):
        plan = gate(X_TD, CONTEXT)
        assert torch.allclose(plan.weights_N, plan.logits_TE[plan.tokens_N, plan.experts_N].sigmoid())
        gate.after_step()


def test_the_balance_loss_is_zero_when_even_and_pushes_down_the_busy() -> None:
    gate = StableGate(width=2, num_experts=2, vocabulary=12)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(2))
    even, busy = torch.eye(2).repeat(2, 1), torch.eye(2)[[0, 0, 0, 1]]
    context = GateContext(token_ids_BS=torch.zeros(1, 4, dtype=torch.long))
    assert abs(float(gate(even, context).losses["balance"].detach())) < 1e-6
    # Three of four: ((3 - 2) / 2 * 3 s - (2 - 1) / 2 * s) / 4 with s = sigmoid(1).
    expected = (1.5 - 0.5) / 4 * torch.sigmoid(torch.tensor(1.0))
    assert torch.allclose(gate(busy, context).losses["balance"], expected)


def test_a_token_that_is_not_in_the_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary - 1 = 7"):
        StableGate(width=8, num_experts=4, vocabulary=8)(X_TD, CONTEXT)
