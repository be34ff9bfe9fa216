from __future__ import annotations

from functools import partial

import torch

from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.experts import Experts
from turnout.nn.flops import executed_flops
from turnout.nn.gates.null_experts import NullExpertsGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def test_without_nulls_it_chooses_as_any_gate() -> None:
    gate, plain = NullExpertsGate(width=8, num_experts=6, k=2, num_null=0), TopKGate(width=8, num_experts=6)
    plain.load_state_dict(gate.state_dict())
    assert torch.allclose(gate(X_TD).to_dense(), plain(X_TD).to_dense())


def test_a_token_that_wants_nulls_has_fewer_experts_and_costs_less() -> None:
    experts = Experts(width=8, inner=16, num_experts=6)
    spent, pairs = [], []
    for lift in (-1.0, 0.0, 1.0):
        torch.manual_seed(0)
        gate = NullExpertsGate(width=8, num_experts=6, k=3, num_null=4)
        with torch.no_grad():
            gate.weight_ED.normal_()
            gate.null_MD.normal_()
            # The last number of each state is 1: nulls get this much more.
            gate.null_MD[:, -1] = 4 * lift
            gate.weight_ED[:, -1] = 0
        x_TD = X_TD.clone()
        x_TD[:, -1] = 1
        plan = gate(x_TD)
        pairs.append(plan.num_pairs)
        spent.append(executed_flops(partial(SegmentExecutor().run, x_TD, plan, experts))[1])
        sums_T = plan.to_dense().sum(1)
        assert torch.allclose(sums_T[sums_T > 0], torch.tensor(1.0))
    assert pairs[0] > pairs[1] > pairs[2]
    assert spent == [count * 6 * 8 * 16 for count in pairs]


def test_a_token_of_nulls_alone_has_no_expert() -> None:
    gate = NullExpertsGate(width=2, num_experts=3, k=2, num_null=2)
    with torch.no_grad():
        gate.null_MD.fill_(5.0)
    assert gate(torch.ones(4, 2)).num_pairs == 0


def test_nulls_begin_as_copies() -> None:
    gate = NullExpertsGate(width=8, num_experts=3, num_null=5)
    assert torch.equal(gate.null_MD, gate.weight_ED[[0, 1, 2, 0, 1]])


def test_the_loss_of_balance_does_not_ask_which_null() -> None:
    gate = NullExpertsGate(width=4, num_experts=2, k=1, num_null=2)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(4)[:2] * 50)
        gate.null_MD.copy_(torch.eye(4)[2:] * 50)
    one, both = torch.eye(4)[[0, 1, 2, 2]], torch.eye(4)
    assert torch.allclose(gate(one).losses["balance"], gate(both).losses["balance"])
    assert torch.allclose(gate(both).losses["balance"], torch.tensor(1.0))
    uneven = torch.eye(4)[[0, 0, 2, 3]]
    assert gate(uneven).losses["balance"] > 1.4
    # Four kinds to choose from, of which two are nothing: half of these tokens have no expert.
    assert gate(both).num_pairs == 2
