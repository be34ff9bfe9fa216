from __future__ import annotations

import torch

from turnout.nn.gates.relu import ReLUGate

X_TD = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))


def test_weights_grow_with_the_state_and_are_no_shares() -> None:
    gate = ReLUGate(width=16, num_experts=8)
    once, twice = gate(X_TD).to_dense(), gate(2 * X_TD).to_dense()
    assert torch.allclose(twice, 2 * once)
    counts_T = (once > 0).sum(1)
    assert counts_T.min() < counts_T.max()


def test_its_gradient_is_the_true_one() -> None:
    gate = ReLUGate(width=16, num_experts=8).double()
    factor_TE = torch.randn(256, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def value() -> torch.Tensor:
        return (gate(X_TD.double()).to_dense().double() * factor_TE).sum()

    value().backward()
    way_ED = torch.randn(8, 16, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    assert gate.weight_ED.grad is not None
    slope = float((gate.weight_ED.grad * way_ED).sum())
    step = 1e-3
    with torch.no_grad():
        start = gate.weight_ED.clone()
        gate.weight_ED.copy_(start + step * way_ED)
        above = float(value())
        gate.weight_ED.copy_(start - step * way_ED)
        below = float(value())
    # A choice jumps somewhere on the way, so that differences of a top-k gate are far from its gradient.
    assert abs((above - below) / (2 * step) - slope) < 0.02 * abs(slope)


def test_the_controller_finds_the_sparsity_that_was_asked_for() -> None:
    torch.manual_seed(0)
    # States of mean zero are on both sides of every plane through it: half of the experts are always active.
    x_TD = X_TD + torch.eye(16)[0] * 2
    gate = ReLUGate(width=16, num_experts=8, k=2, start=1e-4)
    optimizer = torch.optim.Adam(gate.parameters(), lr=3e-3)
    shares = []
    for _ in range(400):
        plan = gate(x_TD)
        # A task that wants all experts as large as can be.
        loss = -plan.to_dense().mean() + plan.losses["sparsity"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gate.after_step()
        shares.append(plan.num_pairs / X_TD.shape[0])
    assert shares[0] > 3
    assert abs(sum(shares[-100:]) / 100 - 2) < 0.25


def test_lambda_follows_the_count_of_experts() -> None:
    gate = ReLUGate(width=2, num_experts=2, k=1, start=1.0, factor=2.0)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(2))
    gate(torch.tensor([[1.0, 1.0]]))
    gate.after_step()
    assert float(gate.strength) == 2.0
    gate(torch.tensor([[-1.0, -1.0]]))
    gate.after_step()
    assert float(gate.strength) == 1.0
    gate.after_step()
    assert float(gate.strength) == 1.0


def test_a_token_without_an_expert_is_no_trouble() -> None:
    gate = ReLUGate(width=2, num_experts=3)
    with torch.no_grad():
        gate.weight_ED.fill_(1.0)
    plan = gate(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert plan.tokens_N.tolist() == [1, 1, 1]
    (plan.weights_N.sum() + sum(plan.losses.values())).backward()
    assert gate.weight_ED.grad is not None
    assert bool(gate.weight_ED.grad.isfinite().all())
