from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.deepseek_moe import DeepSeekMoEGate
from turnout.nn.gates.top_k import TopKGate


def test_every_token_goes_to_the_shared_experts_with_weight_one() -> None:
    gate = DeepSeekMoEGate(width=8, num_experts=6, k=2, num_shared=2, scale=2.5)
    weights_TE = gate(torch.randn(30, 8)).to_dense()
    assert torch.equal(weights_TE[:, :2], torch.ones(30, 2))
    assert torch.allclose(weights_TE[:, 2:].sum(1), torch.tensor(2.5))
    assert (weights_TE[:, 2:] > 0).sum(1).tolist() == [2] * 30


def test_sure_experts_weigh_the_same() -> None:
    gate = DeepSeekMoEGate(width=2, num_experts=4, k=2, num_shared=1)
    rival = TopKGate(width=2, num_experts=3, k=2)
    with torch.no_grad():
        gate.weight_RD.copy_(torch.tensor([[40.0, 0.0], [30.0, 0.0], [0.0, 0.0]]))
        rival.weight_ED.copy_(gate.weight_RD)
    x_TD = torch.tensor([[1.0, 0.0]])
    assert torch.allclose(gate(x_TD).to_dense(), torch.tensor([[1.0, 0.5, 0.5, 0.0]]))
    assert rival(x_TD).to_dense()[0, 0] > 0.99


def test_without_shared_experts_it_is_the_sigmoid_rule() -> None:
    gate = DeepSeekMoEGate(width=8, num_experts=6, k=3, num_shared=0)
    rule = TopKGate(width=8, num_experts=6, k=3, score="sigmoid", weight="guarded_sum")
    x_TD = torch.randn(30, 8)
    with torch.no_grad():
        rule.weight_ED.copy_(gate.weight_RD)
    assert torch.equal(gate(x_TD).to_dense(), rule(x_TD).to_dense())


def test_the_loss_of_balance_is_taken_in_each_item() -> None:
    gate = DeepSeekMoEGate(width=4, num_experts=5, k=1)
    with torch.no_grad():
        gate.weight_RD.copy_(torch.eye(4) * 100 - 50)
    even, uneven = torch.eye(4).repeat(2, 1), torch.eye(4).repeat_interleave(2, 0)
    context = GateContext(num_items=4)
    # All eight tokens together are even, but here each item asks for one expert alone.
    assert gate(uneven, context).losses["balance"] > 3.9
    assert gate(even, GateContext(num_items=2)).losses["balance"] < 1.1


def test_more_shared_and_routed_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="k \\+ num_shared <= E = 4"):
        DeepSeekMoEGate(width=8, num_experts=4, k=3, num_shared=2)
