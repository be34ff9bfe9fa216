from __future__ import annotations

import torch

from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.expert_choice import ExpertChoiceGate
from turnout.nn.gates.top_k import TopKGate

# Nearly alike, so that every token prefers the same experts.
X_TD = 3 + 0.1 * torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=3)


def test_every_expert_has_as_many_tokens_of_every_item() -> None:
    torch.manual_seed(0)
    gate, rival = ExpertChoiceGate(width=8, num_experts=4, k=2), TopKGate(width=8, num_experts=4, k=2)
    plan = gate(X_TD, ITEMS)
    assert plan.counts_E.tolist() == [24] * 4
    items_N = plan.tokens_N // 16
    assert torch.bincount(plan.experts_N * 3 + items_N).tolist() == [8] * 12
    assert rival(X_TD, ITEMS).counts_E.max() > 40


def test_they_are_the_tokens_that_score_highest_for_it() -> None:
    gate = ExpertChoiceGate(width=8, num_experts=4, k=1)
    with torch.no_grad():
        gate.weight_ED.mul_(100)
    plan = gate(X_TD, ITEMS)
    taken_BSE = (plan.to_dense() > 0).reshape(3, 16, 4)
    scores_BSE = plan.scores_TE.reshape(3, 16, 4)
    lowest = scores_BSE.masked_fill(~taken_BSE, torch.inf).amin(1)
    highest = scores_BSE.masked_fill(taken_BSE, -torch.inf).amax(1)
    assert bool((lowest >= highest).all())
    # Some that an expert takes would have gone to another, so this is not the choice of tokens.
    best_T = plan.scores_TE.argmax(1)
    assert bool((plan.experts_N != best_T[plan.tokens_N]).any())


def test_weights_are_scores_or_shares_among_those_who_chose() -> None:
    gate = ExpertChoiceGate(width=8, num_experts=4, k=2)
    plan = gate(X_TD, ITEMS)
    assert torch.equal(plan.weights_N, plan.scores_TE[plan.tokens_N, plan.experts_N])
    other = ExpertChoiceGate(width=8, num_experts=4, k=2, weight="choosers")
    other.load_state_dict(gate.state_dict())
    sums_T = other(X_TD, ITEMS).to_dense().sum(1)
    assert torch.allclose(sums_T[sums_T > 0], torch.tensor(1.0))


def test_room_counts_real_tokens_and_is_never_more_than_they_are() -> None:
    mask_BS = torch.ones(3, 16, dtype=torch.bool)
    mask_BS[0, 1:], mask_BS[1, 10:] = False, False
    plan = ExpertChoiceGate(width=8, num_experts=4, k=2)(X_TD, GateContext(num_items=3, mask_BS=mask_BS))
    items_N = plan.tokens_N // 16
    assert torch.bincount(items_N).tolist() == [4 * 1, 4 * 5, 4 * 8]


def test_all_experts_may_have_every_token() -> None:
    plan = ExpertChoiceGate(width=8, num_experts=4, k=4)(X_TD, ITEMS)
    assert plan.num_pairs == 48 * 4


def test_by_transport_scores_are_even_in_every_item_and_fewer_tokens_are_left_to_nobody() -> None:
    gate = ExpertChoiceGate(width=8, num_experts=4, k=1, score="sinkhorn")
    soft = ExpertChoiceGate(width=8, num_experts=4, k=1)
    with torch.no_grad():
        gate.weight_ED.mul_(30)
        soft.weight_ED.copy_(gate.weight_ED)
    plan = gate(X_TD, ITEMS)
    assert plan.counts_E.tolist() == [12] * 4
    assert torch.allclose(plan.scores_TE.sum(1), torch.ones(48), atol=1e-4)
    assert torch.allclose(plan.scores_TE.view(3, 16, 4).sum(1), torch.full((3, 4), 4.0), rtol=1e-3)
    left = [int((one(X_TD, ITEMS).to_dense() == 0).all(1).sum()) for one in (gate, soft)]
    assert left[0] < left[1]
