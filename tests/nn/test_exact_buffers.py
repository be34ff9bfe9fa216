"""What learns by small steps keeps its precision in a layer of half precision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from turnout.nn.balance.bias import LossFreeBias
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import Gate
from turnout.nn.gates.loss_free import LossFreeGate
from turnout.nn.gates.relu import ReLUGate
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.mixture import MoE

HALVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.to(torch.bfloat16),
    "to_dtype": lambda module: module.to("cpu", torch.float16),
}
GATES: dict[str, Callable[[], Gate]] = {
    "loss_free": lambda: LossFreeGate(width=8, num_experts=4, step=1e-3),
    "relu": lambda: ReLUGate(width=8, num_experts=4, k=1),
    "top_k": lambda: TopKGate(width=8, num_experts=4, is_biased=True),
}
LEARNED = {"loss_free": "bias_E", "relu": "strength", "top_k": "selection_bias"}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", GATES)
def test_half_precision_changes_no_bit_of_what_was_learned(name, half) -> None:
    gate = GATES[name]()
    with torch.no_grad():
        gate.get_buffer(LEARNED[name]).add_(1e-8)
    before = copy.deepcopy(dict(gate.named_buffers()))
    experts = Experts(width=8, inner=8, num_experts=4)
    HALVES[half](MoE(gate=gate, experts=experts))
    assert experts.up_proj.dtype != torch.float32
    for key, value in gate.named_buffers():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["loss_free", "relu"])
def test_a_layer_of_half_precision_learns_what_one_of_single_precision_learns(name) -> None:
    torch.manual_seed(0)
    one = GATES[name]()
    half = copy.deepcopy(one).to(torch.bfloat16)
    with torch.no_grad():
        for gate in (one, half):
            gate.get_parameter("weight_ED").copy_(one.get_parameter("weight_ED").bfloat16())
    x_TD = torch.randn(64, 8) + 0.5
    for _ in range(20):
        for gate in (one, half):
            gate.train()(x_TD)
            gate.after_step()
    learned = half.get_buffer(LEARNED[name])
    assert learned.any()
    assert torch.equal(learned, one.get_buffer(LEARNED[name]))
    assert not torch.equal(learned, GATES[name]().get_buffer(LEARNED[name]))


@pytest.mark.parametrize("is_assigned", [False, True])
def test_a_checkpoint_of_half_precision_leaves_the_type(is_assigned) -> None:
    gate = LossFreeGate(width=8, num_experts=4)
    stored: dict[str, Tensor] = {
        name: value.half() if value.is_floating_point() else value
        for name, value in gate.state_dict().items()
    }
    stored["bias_E"] = torch.full((4,), 0.25, dtype=torch.float16)
    fresh = LossFreeGate(width=8, num_experts=4)
    fresh.load_state_dict(stored, assign=is_assigned)
    assert fresh.bias_E.dtype == torch.float32
    assert fresh.bias_E.tolist() == [0.25] * 4
    fresh.train()(torch.randn(8, 8))
    fresh.after_step()
    assert fresh.bias_E.unique().numel() > 1


def test_they_move_between_devices_and_are_made_in_single_precision_by_a_model_in_half() -> None:
    gate = LossFreeGate(width=8, num_experts=4).to("meta", torch.bfloat16)
    assert (gate.bias_E.device.type, gate.bias_E.dtype) == ("meta", torch.float32)
    gate = gate.to_empty(device="cpu")
    assert (gate.bias_E.device.type, gate.bias_E.dtype) == ("cpu", torch.float32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert LossFreeGate(width=8, num_experts=4).bias_E.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_load_beyond_half_precision_is_counted() -> None:
    balance = LossFreeBias(num_experts=2).half()
    balance.observe(torch.tensor([70_000, 1]))
    assert balance.load_E.tolist() == [70_000, 1]
