from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.balance.sparse_transport import sparse_transport
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.gates.expert_choice import ExpertChoiceGate
from turnout.nn.gates.sparse_transport_choice import SparseTransportChoiceGate

# Nearly alike, so that every token prefers the same experts.
X_TD = 3 + torch.randn(192, 8, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=3)


def pair_of_gates(k: int, steps: int = 20) -> tuple[SparseTransportChoiceGate, ExpertChoiceGate]:
    torch.manual_seed(0)
    gate = SparseTransportChoiceGate(width=8, num_experts=4, k=k, steps=steps)
    rival = ExpertChoiceGate(width=8, num_experts=4, k=k)
    with torch.no_grad():
        gate.weight_ED.mul_(10)
        rival.weight_ED.copy_(gate.weight_ED)
    return gate, rival


def left_to_nobody(gate: Gate) -> int:
    return int((gate(X_TD, ITEMS).to_dense() == 0).all(1).sum())


def test_pairs_are_those_of_the_transport_plan_and_weights_are_scores() -> None:
    gate, _ = pair_of_gates(2)
    plan = gate(X_TD, ITEMS)
    scores_TE = (X_TD @ gate.weight_ED.T).softmax(-1)
    _, plan_BSE = sparse_transport(scores_TE.reshape(3, 64, 4), torch.full((3,), 32.0))
    is_pair_TE = plan_BSE.reshape(192, 4) > 0
    assert torch.allclose(plan.to_dense(), scores_TE * is_pair_TE, atol=1e-6)
    items_N = plan.tokens_N // 64
    assert int(torch.bincount(plan.experts_N * 3 + items_N).max()) <= 32


def test_fewer_tokens_are_left_to_nobody_than_in_expert_choice_and_fewer_still_after_more_steps() -> None:
    gate, rival = pair_of_gates(1)
    longer, _ = pair_of_gates(1, steps=200)
    assert left_to_nobody(rival) > 20
    assert left_to_nobody(gate) < 0.5 * left_to_nobody(rival)
    assert left_to_nobody(longer) <= min(2, left_to_nobody(gate))


def test_tokens_have_more_nearly_the_same_number_of_experts_than_in_expert_choice() -> None:
    apart = [float((one(X_TD, ITEMS).to_dense() > 0).sum(1).float().var()) for one in pair_of_gates(2)]
    assert apart[0] < 0.7 * apart[1]


def test_it_makes_as_much_of_a_new_gate_whose_scores_hardly_differ() -> None:
    gate, rival = pair_of_gates(1)
    with torch.no_grad():
        gate.weight_ED.mul_(0.01)
        rival.weight_ED.mul_(0.01)
    assert left_to_nobody(gate) < 0.5 * left_to_nobody(rival)


def test_each_item_has_a_plan_of_its_own_whose_room_counts_real_tokens() -> None:
    gate, _ = pair_of_gates(1)
    mask_BS = torch.ones(3, 64, dtype=torch.bool)
    mask_BS[0, 1:], mask_BS[1, 40:] = False, False
    plan = gate(X_TD, GateContext(num_items=3, mask_BS=mask_BS))
    counts = torch.bincount(plan.experts_N * 3 + plan.tokens_N // 64, minlength=12).reshape(4, 3)
    assert bool((counts <= torch.tensor([1, 10, 16])).all())
    alone = gate(X_TD[128:], GateContext())
    assert torch.allclose(plan.to_dense()[128:], alone.to_dense(), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"k": 5}, {"gamma": 0.0}, {"steps": 0}, {"rate": -1.0}])
def test_what_makes_no_plan_is_refused(wrong) -> None:
    with pytest.raises(InputError, match=f"SparseTransportChoiceGate: {next(iter(wrong))}"):
        SparseTransportChoiceGate(width=8, num_experts=4, **wrong)
