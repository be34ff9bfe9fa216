from __future__ import annotations

from dataclasses import replace

import torch

from turnout.nn.gates.attention_aware import AttentionAwareGate, averaged
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))


def test_who_looks_at_itself_alone_chooses_as_ever() -> None:
    gate, plain = AttentionAwareGate(width=8, num_experts=5), TopKGate(width=8, num_experts=5)
    plain.load_state_dict(gate.state_dict())
    alone = gate(X_TD, GateContext(attention_BSS=torch.eye(12)[None]))
    assert torch.allclose(alone.to_dense(), plain(X_TD).to_dense(), atol=1e-6)


def test_who_looks_at_the_same_tokens_chooses_the_same_experts() -> None:
    gate = AttentionAwareGate(width=8, num_experts=5)
    with torch.no_grad():
        gate.weight_ED.mul_(100)
    same_BSS = torch.randn(12, generator=torch.Generator().manual_seed(1)).softmax(0).expand(1, 12, 12)
    weights_TE = gate(X_TD, GateContext(attention_BSS=same_BSS)).to_dense()
    assert torch.allclose(weights_TE, weights_TE[:1].expand(12, 5), atol=1e-5)
    assert TopKGate(width=8, num_experts=5)(X_TD).counts_E.count_nonzero() > 2


def test_probabilities_stay_probabilities_and_padding_has_no_say() -> None:
    own_TE = torch.rand(12, 5).softmax(1)
    seen_BSS = torch.rand(2, 6, 6).softmax(-1)
    mask_BS = torch.ones(2, 6, dtype=torch.bool)
    mask_BS[0, 3:] = False
    context = GateContext(num_items=2, mask_BS=mask_BS)
    mixed_TE = averaged(own_TE, seen_BSS, context)
    assert torch.allclose(mixed_TE.sum(1), torch.ones(12), atol=1e-6)
    by_hand = (seen_BSS[0, 0, :3] / seen_BSS[0, 0, :3].sum()) @ own_TE[:3]
    assert torch.allclose(mixed_TE[0], by_hand, atol=1e-6)
    gate = AttentionAwareGate(width=8, num_experts=5)
    with torch.no_grad():
        gate.weight_ED.mul_(50)
    scores_TE = gate(X_TD, replace(context, attention_BSS=seen_BSS)).scores_TE
    expected_TE = averaged((X_TD @ gate.weight_ED.T).softmax(1), seen_BSS, context)
    real_T = mask_BS.flatten()
    assert torch.allclose(scores_TE[real_T], expected_TE[real_T], atol=1e-5)
