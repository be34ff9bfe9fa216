from __future__ import annotations

import torch

from turnout.nn.gates.hyper import HyperGate

X_TD = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))


def test_one_vector_is_all_that_is_learned() -> None:
    gate = HyperGate(width=8, num_experts=6, size=5, hidden=32)
    assert {name: p.numel() for name, p in gate.named_parameters()} == {"vector_Z": 5}
    fixed = {name: value.clone() for name, value in gate.named_buffers()}
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.1)
    before_ED = gate.written()[0].detach().clone()
    for _ in range(5):
        loss = -gate(X_TD).scores_TE[:, 2].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.allclose(gate.written()[0], before_ED)
    assert all(torch.equal(value, fixed[name]) for name, value in gate.named_buffers())


def test_what_it_writes_stays_within_the_reach_of_the_vector() -> None:
    gate = HyperGate(width=8, num_experts=6, size=3, hidden=32)
    with torch.no_grad():
        start = gate.vector_Z.clone()
        rows = []
        for _ in range(40):
            # Steps too small to pass a kink: the network is linear there.
            gate.vector_Z.copy_(start + 1e-4 * torch.randn(3))
            rows.append(torch.cat([gate.written()[0].flatten(), gate.written()[1]]))
        moves = torch.stack(rows) - torch.stack(rows).mean(0)
    values = torch.linalg.svdvals(moves)
    # 54 numbers of the gate move along 3 directions.
    assert values[3] < 1e-2 * values[2]


def test_the_gate_is_the_written_one() -> None:
    gate = HyperGate(width=8, num_experts=6, k=2)
    weight_ED, bias_E = gate.written()
    plan = gate(X_TD)
    assert torch.allclose(plan.logits_TE, X_TD @ weight_ED.T + bias_E, atol=1e-6)
    assert torch.allclose(plan.to_dense().sum(1), torch.ones(30))
