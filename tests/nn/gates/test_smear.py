from __future__ import annotations

import torch

from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.smear import SmearGate

X_TD = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=2)


def test_all_tokens_of_an_item_run_through_one_merged_expert() -> None:
    gate = SmearGate(width=8, num_experts=3, dropout=0.0)
    experts = Experts(width=8, inner=4, num_experts=3, has_bias=True)
    plan = gate(X_TD, ITEMS)
    assert plan.mix_GE.shape == (2, 3)
    y_TD = LoopExecutor().run(X_TD, plan, experts)
    up, down = experts.up_proj, experts.down_proj
    mix_E = plan.mix_GE[1]
    merged_up, merged_down = (torch.einsum("e,exy->xy", mix_E, weight) for weight in (up, down))
    gate_SI, up_SI = (X_TD[12:] @ merged_up.T).chunk(2, dim=-1)
    by_hand = (torch.nn.functional.silu(gate_SI) * up_SI) @ merged_down.T
    assert torch.allclose(y_TD[12:], by_hand, atol=1e-5)


def test_a_sure_gate_is_one_expert() -> None:
    gate, experts = SmearGate(width=8, num_experts=3), Experts(width=8, inner=4, num_experts=3)
    with torch.no_grad():
        gate.factor.fill_(1e4)
    plan = gate.eval()(X_TD, ITEMS)
    best = plan.mix_GE.argmax(1)
    y_TD = LoopExecutor().run(X_TD, plan, experts)
    assert torch.allclose(y_TD[:12], experts.stack().one(int(best[0]), X_TD[:12]), atol=1e-5)


def test_every_expert_has_a_gradient() -> None:
    gate, experts = SmearGate(width=8, num_experts=3, dropout=0.0), Experts(width=8, inner=4, num_experts=3)
    LoopExecutor().run(X_TD, gate(X_TD, ITEMS), experts).square().sum().backward()
    assert experts.up_proj.grad is not None
    assert bool(experts.up_proj.grad.flatten(1).any(1).all())
    assert gate.weight_ED.grad is not None
    assert bool(gate.weight_ED.grad.any(1).all())


def test_dropped_experts_leave_a_mean_and_none_in_eval() -> None:
    torch.manual_seed(0)
    gate = SmearGate(width=8, num_experts=3, dropout=0.5)
    mixes = torch.cat([gate(X_TD, ITEMS).mix_GE for _ in range(40)])
    assert torch.allclose(mixes.sum(1), torch.ones(80))
    assert 0.3 < float((mixes == 0).float().mean()) < 0.6
    assert bool((gate.eval()(X_TD, ITEMS).mix_GE > 0).all())


def test_the_mean_of_the_past_ends_where_that_of_the_sequence_does() -> None:
    whole = SmearGate(width=8, num_experts=3)
    past = SmearGate(width=8, num_experts=3, span="past")
    past.load_state_dict(whole.state_dict())
    whole.eval(), past.eval()
    assert (whole.is_causal, past.is_causal) == (False, True)
    last = past(X_TD, ITEMS).to_dense().reshape(2, 12, 3)[:, -1]
    assert torch.allclose(last, whole(X_TD, ITEMS).mix_GE, atol=1e-5)
    first = past(X_TD, ITEMS).to_dense()[0]
    assert torch.allclose(first, whole(X_TD[:1]).to_dense()[0], atol=1e-5)
