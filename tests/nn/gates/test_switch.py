from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.switch import SwitchGate
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.mixture import MoE


def drawn_to_the_first(**setting: float | None) -> tuple[SwitchGate, torch.Tensor]:
    """Return a gate and two items of 8 tokens that all want expert 0 of 4."""
    gate = SwitchGate(width=4, num_experts=4, jitter=0.0, **setting)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(4) * 2)
    return gate, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(16, 1)


def test_a_full_expert_turns_later_tokens_away() -> None:
    gate, x_TD = drawn_to_the_first(capacity_factor=1.0)
    plan = gate(x_TD, GateContext(num_items=2))
    assert plan.tokens_N.tolist() == [0, 1, 8, 9]
    assert plan.dropped_E is not None
    assert plan.dropped_E.tolist() == [12, 0, 0, 0]
    assert plan.capacity == 4
    y_TD = LoopExecutor().run(x_TD, plan, Experts(width=4, inner=3, num_experts=4))
    assert not y_TD[2:8].any()
    assert y_TD[:2].any()


def test_the_weight_is_the_probability_of_the_best() -> None:
    gate, x_TD = drawn_to_the_first(capacity_factor=None)
    plan = gate(x_TD)
    assert torch.allclose(plan.weights_N, torch.tensor(math.exp(2) / (math.exp(2) + 3)))
    assert plan.dropped_E is None


def test_with_room_for_all_it_is_the_best_one_of_k() -> None:
    gate, best = SwitchGate(width=8, num_experts=4), TopKGate(width=8, num_experts=4, k=1, weight="score")
    best.load_state_dict(gate.state_dict())
    x_TD = torch.randn(40, 8)
    assert torch.equal(gate.eval()(x_TD).to_dense(), best(x_TD).to_dense())


def test_padding_takes_no_room() -> None:
    gate, x_TD = drawn_to_the_first(capacity_factor=1.0)
    mask_BS = torch.ones(2, 8, dtype=torch.bool)
    mask_BS[0, :4] = False
    plan = gate(x_TD, GateContext(num_items=2, mask_BS=mask_BS))
    assert plan.tokens_N.tolist() == [4, 8, 9]


def test_it_sees_the_sequence_only_where_room_is_limited() -> None:
    gate = SwitchGate(width=4, num_experts=2)
    assert gate.sees == "sequence"
    assert gate.eval().sees == "token"
    assert SwitchGate(width=4, num_experts=2, eval_capacity_factor=2.0).eval().sees == "sequence"


def test_the_loss_of_balance_is_one_when_even_and_e_when_all_go_to_one() -> None:
    gate = SwitchGate(width=4, num_experts=4, jitter=0.0)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(4) * 100)
    assert torch.allclose(gate(torch.eye(4)).losses["balance"], torch.tensor(1.0))
    assert torch.allclose(gate(torch.eye(4)[[0, 0, 0]]).losses["balance"], torch.tensor(4.0))
    assert gate.eval()(torch.eye(4)).losses == {}


@pytest.mark.parametrize("setting", [{"capacity_factor": 0.0}, {"jitter": 1.0}], ids=str)
def test_what_makes_no_sense_is_refused(setting: dict) -> None:
    with pytest.raises(InputError, match="SwitchGate"):
        SwitchGate(width=4, num_experts=2, **setting)


def test_one_gate_for_all_layers_chooses_alike_and_learns_from_each() -> None:
    """Omni-router: the same matrix in every layer."""
    gate, x_TD = SwitchGate(width=8, num_experts=4, jitter=0.0, capacity_factor=None), torch.randn(40, 8)
    experts = [Experts(width=8, inner=6, num_experts=4) for _ in range(3)]
    layers: list[Any] = [MoE(gate=gate, experts=own) for own in experts]
    outs = [layer(x_TD) for layer in layers]
    plans = [layer.plan for layer in layers]
    assert all(torch.equal(plan.experts_N, plans[0].experts_N) for plan in plans)
    # Each layer keeps the plan of its own states.
    layers[1](-x_TD)
    assert not torch.equal(layers[1].plan.to_dense(), plans[0].to_dense())
    parts = [torch.autograd.grad(out.square().sum(), gate.weight_ED, retain_graph=True)[0] for out in outs]
    together = torch.autograd.grad(torch.stack(outs).square().sum(), gate.weight_ED)[0]
    assert all(bool(part.any()) for part in parts)
    assert torch.allclose(together, torch.stack(parts).sum(0), atol=1e-4)


@pytest.mark.parametrize("gate", [SwitchGate, TopKGate])
def test_jitter_is_as_fine_in_half_precision(gate) -> None:
    found = gate(width=64, num_experts=4, jitter=0.01).train().bfloat16()
    with torch.no_grad():
        found.weight_ED.fill_(1 / 64)
    logits_TE = found(torch.ones(500, 64, dtype=torch.bfloat16)).logits_TE
    # The mean of 64 numbers that are uniform in [0.99, 1.01].
    assert logits_TE.std().item() == pytest.approx(0.01 / math.sqrt(3 * 64), rel=0.2)
    assert logits_TE.mean().item() == pytest.approx(1.0, abs=1e-4)
