from __future__ import annotations

import torch

from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.soft import SoftGate

X_TD = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=2)


def test_slots_are_means_of_tokens_and_outputs_means_of_slots() -> None:
    plan = SoftGate(width=8, num_experts=3, slots=2)(X_TD, ITEMS)
    assert plan.dispatch_BSZ.shape == (2, 12, 6)
    assert torch.allclose(plan.dispatch_BSZ.sum(1), torch.ones(2, 6))
    assert torch.allclose(plan.combine_BSZ.sum(2), torch.ones(2, 12))
    # Nobody is turned away: every token counts in every slot.
    assert bool((plan.dispatch_BSZ > 0).all())


def test_what_a_token_takes_is_the_softmax_of_its_logits() -> None:
    plan = SoftGate(width=8, num_experts=3, slots=2)(X_TD, ITEMS)
    assert torch.allclose(plan.to_dense(), plan.logits_TE.softmax(-1), atol=1e-6)


def test_the_length_of_a_state_does_not_matter() -> None:
    gate = SoftGate(width=8, num_experts=3)
    assert torch.allclose(gate(X_TD).to_dense(), gate(7 * X_TD).to_dense(), atol=1e-6)


def test_with_factor_zero_everybody_gets_the_mean() -> None:
    gate, experts = SoftGate(width=8, num_experts=3), Experts(width=8, inner=4, num_experts=3)
    with torch.no_grad():
        gate.factor.zero_()
    y_TD = LoopExecutor().run(X_TD, gate(X_TD, ITEMS), experts)
    mean_1D = X_TD[:12].mean(0, keepdim=True)
    outs = [experts.stack().one(e, mean_1D) for e in range(3)]
    assert torch.allclose(y_TD[:12], torch.stack(outs).mean(0).expand(12, 8), atol=1e-5)


def test_an_item_of_padding_and_no_positions_give_valid_plans() -> None:
    gate = SoftGate(width=8, num_experts=3)
    mask_BS = torch.tensor([[True] * 12, [False] * 12])
    plan = gate(X_TD, GateContext(num_items=2, mask_BS=mask_BS))
    plan.validate()
    assert not plan.dispatch_BSZ[1].any()
    assert not plan.to_dense()[12:].any()
    gate(X_TD[:0], ITEMS).validate()
