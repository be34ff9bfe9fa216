from __future__ import annotations

import torch

from turnout.nn.gates.smoe_dropout import SMoEDropoutGate

X_TD = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))


def test_nothing_is_learned_and_k_grows_to_all_experts() -> None:
    gate = SMoEDropoutGate(width=8, num_experts=8, k=2, steps=12)
    assert list(gate.parameters()) == []
    counts = []
    for _ in range(15):
        counts.append(gate(X_TD).num_pairs // 30)
        gate.after_step()
    assert counts == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 8]


def test_more_experts_are_added_to_those_before() -> None:
    gate = SMoEDropoutGate(width=8, num_experts=8, k=2, steps=1)
    few_TE = gate(X_TD).to_dense() > 0
    gate.after_step()
    assert bool((gate(X_TD).to_dense() > 0).all())
    slim = SMoEDropoutGate(width=8, num_experts=8, k_eval=3).eval()
    slim.load_state_dict(gate.state_dict())
    slim_TE = slim(X_TD).to_dense() > 0
    assert slim_TE.sum(1).tolist() == [3] * 30
    assert bool((slim_TE | ~few_TE).all())
