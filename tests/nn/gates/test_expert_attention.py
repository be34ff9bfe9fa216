from __future__ import annotations

import torch
from torch.nn import functional

from turnout.nn.gates.expert_attention import ExpertAttentionGate

X_TD = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))


def test_it_is_the_attention_of_torch_with_experts_as_positions() -> None:
    gate = ExpertAttentionGate(width=8, num_experts=6)
    with torch.no_grad():
        gate.weight_QED.mul_(50)
    q, k, v = (part[..., None] for part in X_TD @ gate.weight_QED.mT)
    logits_TE = functional.scaled_dot_product_attention(q, k, v, scale=1.0)[..., 0]
    assert torch.allclose(gate(X_TD).logits_TE, logits_TE, atol=1e-4)


def test_experts_that_look_alike_at_all_get_the_mean_value() -> None:
    gate = ExpertAttentionGate(width=8, num_experts=4)
    with torch.no_grad():
        gate.weight_QED[0] = 0
    plan = gate(X_TD)
    value_TE = X_TD @ gate.weight_QED[2].T
    assert torch.allclose(plan.logits_TE, value_TE.mean(1, keepdim=True).expand(30, 4), atol=1e-6)


def test_renaming_experts_renames_the_plan() -> None:
    gate, other = (ExpertAttentionGate(width=8, num_experts=6) for _ in range(2))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    with torch.no_grad():
        gate.weight_QED.mul_(50)
        other.weight_QED.copy_(gate.weight_QED[:, order])
    # Logits, since sure experts with nearly one logit may change places in the last digit.
    assert torch.allclose(other(X_TD).logits_TE, gate(X_TD).logits_TE[:, order], atol=1e-4)
