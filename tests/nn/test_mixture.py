from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.nn.moe_models import decisive
from turnout.core.errors import InputError, ShapeError
from turnout.nn.experts import Experts, stack_of
from turnout.nn.gates.autonomy import AutonomyGate
from turnout.nn.gates.compete import CompeteGate
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.switch import SwitchGate
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.mixture import MoE
from turnout.nn.moe import find_moe_layers


def test_a_layer_keeps_its_plan_and_adds_what_is_shared() -> None:
    gate, experts = TopKGate(width=8, num_experts=4), Experts(width=8, inner=6, num_experts=4)
    shared = torch.nn.Linear(8, 8)
    x_BSD = torch.randn(2, 5, 8)
    plain = MoE(gate=gate, experts=experts)
    both = MoE(gate=gate, experts=experts, shared=shared)
    assert torch.allclose(both(x_BSD), plain(x_BSD) + shared(x_BSD), atol=1e-6)
    assert plain.plan is not None
    assert plain.plan.num_tokens == 10


def test_padding_has_no_expert_and_changes_nobody() -> None:
    layer = MoE(gate=TopKGate(width=8, num_experts=4), experts=Experts(width=8, inner=6, num_experts=4))
    x_BSD = torch.randn(2, 5, 8)
    mask_BS = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    y_BSD = layer(x_BSD, GateContext(num_items=2, mask_BS=mask_BS))
    assert not bool(y_BSD[~mask_BS].any())
    assert torch.allclose(y_BSD[mask_BS], layer(x_BSD)[mask_BS], atol=1e-6)


def test_it_runs_the_experts_of_a_checkpoint() -> None:
    found = find_moe_layers(decisive("mixtral"))[0]
    gate = TopKGate(width=32, num_experts=4)
    with torch.no_grad():
        gate.weight_ED.copy_(found.gate.get_parameter("weight"))
    layer = MoE(gate=gate, experts=found.experts)
    x_BSD = torch.randn(2, 6, 32)
    assert torch.allclose(layer(x_BSD), found.block(x_BSD), atol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_a_gate_that_looks_at_experts_looks_at_those_of_a_checkpoint(family: str) -> None:
    found = find_moe_layers(decisive(family))[0]
    num_experts = found.gate.get_parameter("weight").shape[0]
    x_TD = torch.randn(12, 32)
    answers_TED = torch.stack([stack_of(found.experts).one(e, x_TD) for e in range(num_experts)], dim=1)
    compete = CompeteGate(width=32, num_experts=num_experts, k=1, version="first", chance=1.0)
    autonomy = AutonomyGate(width=32, num_experts=num_experts, k=1)
    norms = [answers_TED.norm(dim=-1), (stack_of(found.experts).up_EFD @ x_TD.T).norm(dim=1).T]
    for gate, norms_TE in zip((compete, autonomy), norms, strict=True):
        layer = MoE(gate=gate, experts=found.experts)
        layer(x_TD)
        assert layer.plan is not None
        assert torch.equal(layer.plan.to_dense().argmax(1), norms_TE.argmax(1))


def test_a_layer_that_has_been_trained_is_copied_without_its_plan() -> None:
    layer = MoE(gate=TopKGate(width=8, num_experts=4), experts=Experts(width=8, inner=6, num_experts=4))
    x_TD = torch.randn(5, 8)
    y_TD = layer(x_TD)
    y_TD.sum().backward()
    other = copy.deepcopy(layer)
    assert other.plan is None
    assert layer.plan is not None
    assert torch.equal(other(x_TD), y_TD)


@pytest.mark.parametrize("is_reentrant", [False, True])
def test_losses_that_would_teach_nothing_under_checkpointing_are_refused(is_reentrant: bool) -> None:
    gate = SwitchGate(width=8, num_experts=4)
    layer = MoE(gate=gate, experts=Experts(width=8, inner=6, num_experts=4)).train()
    x_TD = torch.randn(5, 8, requires_grad=True)
    y_TD = checkpoint(layer, x_TD, use_reentrant=is_reentrant)
    assert layer.plan is not None
    assert set(layer.plan.losses) == {"balance"}
    if is_reentrant:
        with pytest.raises(InputError, match=r"losses balance of the gate.*use_reentrant=False"):
            sum(layer.plan.losses.values())
        with torch.no_grad():
            assert float(layer.plan.losses["balance"]) > 0
        y_TD.sum().backward()
        return
    (gradient_ED,) = torch.autograd.grad(layer.plan.losses["balance"], gate.weight_ED, retain_graph=True)
    assert bool(gradient_ED.any())


def test_a_gate_for_other_experts_is_refused() -> None:
    with pytest.raises(ShapeError, match="num_experts = 4"):
        MoE(gate=TopKGate(width=8, num_experts=5), experts=Experts(width=8, inner=6, num_experts=4))
    with pytest.raises(ShapeError, match="width = 9"):
        MoE(gate=TopKGate(width=8, num_experts=4), experts=Experts(width=9, inner=6, num_experts=4))
    with pytest.raises(InputError, match="a Gate"):
        MoE(gate=torch.nn.Linear(8, 4), experts=Experts(width=8, inner=6, num_experts=4))  # type: ignore[arg-type]


def test_what_stands_at_padding_reaches_no_gradient_of_what_is_shared() -> None:
    layer = MoE(
        gate=TopKGate(width=8, num_experts=4),
        experts=Experts(width=8, inner=4, num_experts=4),
        shared=torch.nn.Linear(8, 8),
    )
    x_BSD, mask_BS = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    mask_BS[0, 2] = False
    x_BSD[0, 2] = torch.nan
    layer(x_BSD, GateContext(num_items=2, mask_BS=mask_BS))[mask_BS].sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
