from __future__ import annotations

import torch

from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.similarity_aware import SimilarityAwareGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=2)


def test_rows_of_the_graph_add_up_to_one_over_earlier_tokens() -> None:
    graph_BSS = SimilarityAwareGate(width=8, num_experts=5).graph(X_TD, ITEMS)
    assert torch.allclose(graph_BSS.sum(-1), torch.ones(2, 6), atol=1e-6)
    assert not graph_BSS.triu(1).any()
    whole = SimilarityAwareGate(width=8, num_experts=5, is_causal_graph=False)
    assert bool((whole.graph(X_TD, ITEMS) > 0).all())
    assert (whole.is_causal, SimilarityAwareGate(width=8, num_experts=5).is_causal) == (False, True)
    # Scores are means of the tokens' own probabilities along it.
    own_BSE = (X_TD @ whole.weight_ED.T).softmax(-1).view(2, 6, 5)
    mixed_TE = (whole.graph(X_TD, ITEMS) @ own_BSE).flatten(0, 1)
    assert torch.allclose(whole(X_TD, ITEMS).scores_TE, mixed_TE, atol=1e-6)


def test_near_temperature_zero_each_token_asks_itself_alone() -> None:
    # Orthogonal states of one length: each is most like itself.
    x_TD = torch.eye(8)
    gate = SimilarityAwareGate(width=8, num_experts=5, size=8, temperature=1e-4)
    plain = TopKGate(width=8, num_experts=5)
    with torch.no_grad():
        gate.project_ZD.copy_(torch.eye(8))
        plain.weight_ED.copy_(gate.weight_ED)
    assert torch.allclose(gate(x_TD).to_dense(), plain(x_TD).to_dense(), atol=1e-5)


def test_alike_tokens_share_their_choice() -> None:
    gate = SimilarityAwareGate(width=8, num_experts=5, temperature=1e6, is_causal_graph=False)
    with torch.no_grad():
        gate.weight_ED.mul_(100)
    weights_TE = gate(X_TD, ITEMS).to_dense()
    assert torch.allclose(weights_TE[:6], weights_TE[:1].expand(6, 5), atol=1e-3)
    assert not torch.allclose(weights_TE[0], weights_TE[6], atol=1e-3)
