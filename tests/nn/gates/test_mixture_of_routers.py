from __future__ import annotations

import torch

from turnout.nn.gates.mixture_of_routers import MixtureOfRoutersGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))


def test_one_sub_gate_is_an_ordinary_gate() -> None:
    gate, plain = (
        MixtureOfRoutersGate(width=8, num_experts=6, num_gates=1, kept=1),
        TopKGate(width=8, num_experts=6),
    )
    with torch.no_grad():
        plain.weight_ED.copy_(gate.weight_GED[0])
    assert torch.allclose(gate(X_TD).to_dense(), plain(X_TD).to_dense(), atol=1e-6)


def test_a_token_listens_to_the_sub_gates_that_its_main_gate_trusts() -> None:
    gate = MixtureOfRoutersGate(width=8, num_experts=6, num_gates=3, kept=1)
    with torch.no_grad():
        gate.main_GD.copy_(torch.eye(8)[:3] * 50)
    for number in range(3):
        x_TD = X_TD.clone()
        x_TD[:, :3] = torch.eye(3)[number]
        rows = (x_TD @ gate.weight_GED[number].T).softmax(-1)
        assert torch.allclose(gate(x_TD).scores_TE, rows, atol=1e-5)


def test_scores_are_a_mean_of_the_kept_ones() -> None:
    gate = MixtureOfRoutersGate(width=8, num_experts=6, num_gates=4, kept=2)
    with torch.no_grad():
        gate.main_GD.mul_(50)
    scores_TE = gate(X_TD).scores_TE
    assert torch.allclose(scores_TE.sum(1), torch.ones(50))
    trust_TG = (X_TD @ gate.main_GD.T).softmax(-1)
    lowest = trust_TG.argsort(1)[:, :2]
    kept_TG = trust_TG.scatter(1, lowest, 0.0)
    kept_TG = kept_TG / kept_TG.sum(1, keepdim=True)
    rows = torch.einsum("td,ged->tge", X_TD, gate.weight_GED).softmax(-1)
    assert torch.allclose(scores_TE, torch.einsum("tg,tge->te", kept_TG, rows), atol=1e-6)
