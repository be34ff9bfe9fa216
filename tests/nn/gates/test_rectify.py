from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.rectify import RectifyGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
X_TD[:, 0] = 3.0  # what states share: some experts are wanted by most tokens
CONTEXT = GateContext(num_items=2)


def gate_of(**settings):
    torch.manual_seed(1)
    gate = RectifyGate(width=8, num_experts=6, **settings)
    with torch.no_grad():
        gate.weight_ED.mul_(20)
    return gate


def slow(gate, x_TD, context):
    """Weights (T, E) one token after the other, as the method is described."""
    p_TE = (x_TD @ gate.weight_ED.T).softmax(-1).detach()
    size = len(x_TD) // context.num_items
    mask_T = torch.ones(len(x_TD), dtype=torch.bool) if context.mask_BS is None else context.mask_T()
    counts_TE = torch.zeros_like(p_TE)
    for item in range(context.num_items):
        tokens = [t for t in range(item * size, (item + 1) * size) if mask_T[t]]
        room = [math.ceil(len(tokens) * gate.capacity_factor * gate.k / 6)] * 6
        ranked = {t: p_TE[t].argsort(descending=True, stable=True).tolist() for t in tokens}
        turned_away = dict.fromkeys(tokens, 0)
        for place in range(gate.k):
            for t in tokens:
                expert = ranked[t][place]
                if room[expert]:
                    room[expert] -= 1
                    counts_TE[t, expert] = 1
                else:
                    turned_away[t] += 1
        for number, t in enumerate(tokens if gate.is_local else []):
            device = number * gate.devices // len(tokens)
            home = [e for e in ranked[t] if e * gate.devices // 6 == device and not counts_TE[t, e]]
            if turned_away[t] and home:
                counts_TE[t, home[0]] = turned_away[t]
        for expert in range(6 if gate.is_filled else 0):
            fit = [t for t in tokens if ranked[t][gate.k] == expert and not counts_TE[t, expert]]
            for t in sorted(fit, key=lambda t: -float(p_TE[t, expert]))[: room[expert]]:
                counts_TE[t, expert] = 1
    return torch.nan_to_num(counts_TE * p_TE / (counts_TE * p_TE).sum(1, keepdim=True))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True), (False, False)])
def test_it_is_what_one_token_after_the_other_gives(k: int, factor: float, parts: tuple) -> None:
    gate = gate_of(k=k, capacity_factor=factor, devices=3, is_local=parts[0], is_filled=parts[1])
    for mask_BS in (None, (torch.arange(48) % 24 < 17).view(2, 24)):
        context = replace(CONTEXT, mask_BS=mask_BS)
        assert torch.allclose(gate(X_TD, context).to_dense(), slow(gate, X_TD, context), atol=1e-5)


def test_nobody_is_left_out_and_nobody_leaves_home_for_it() -> None:
    bare, right = gate_of(is_local=False, is_filled=False), gate_of(is_filled=False)
    lost_TE, found_TE = bare(X_TD, CONTEXT).to_dense(), right(X_TD, CONTEXT).to_dense()
    is_lost_T = lost_TE.sum(1) == 0
    assert int(is_lost_T.sum()) == int(bare(X_TD, CONTEXT).dropped_E.sum()) > 5
    assert torch.allclose(found_TE.sum(1), torch.ones(48))
    assert torch.equal(found_TE[~is_lost_T], lost_TE[~is_lost_T])
    experts_T = found_TE.argmax(1)
    home_T = torch.arange(48) % 24 // 12
    assert torch.equal((experts_T // 3)[is_lost_T], home_T[is_lost_T])


def test_spare_room_is_filled_and_no_more() -> None:
    gates = [gate_of(is_local=False, is_filled=is_filled, capacity_factor=1.5) for is_filled in (False, True)]
    bare, filled = (gate(X_TD, CONTEXT) for gate in gates)
    more_E = filled.counts_E - bare.counts_E
    assert int(more_E.sum()) > 3
    per_item_BE = (filled.to_dense() > 0).view(2, 24, 6).sum(1)
    assert int(per_item_BE.max()) <= 6
    assert bool(((bare.to_dense() > 0) <= (filled.to_dense() > 0)).all())


def test_with_room_for_all_it_is_top_k_and_with_the_room_filled_top_k_plus_one() -> None:
    for k in (1, 2):
        for is_filled in (False, True):
            gate = gate_of(k=k, capacity_factor=6.0, is_filled=is_filled)
            plain = TopKGate(width=8, num_experts=6, k=k + is_filled)
            with torch.no_grad():
                plain.weight_ED.copy_(gate.weight_ED)
            assert torch.allclose(gate(X_TD, CONTEXT).to_dense(), plain(X_TD).to_dense(), atol=1e-6)
            assert int(gate(X_TD, CONTEXT).dropped_E.sum()) == 0


def test_an_expert_alone_has_a_gradient_since_the_sum_is_a_constant() -> None:
    gate = gate_of(capacity_factor=None)
    plan = gate(X_TD)
    assert torch.allclose(plan.weights_N, torch.ones(48))
    plan.weights_N[plan.experts_N == plan.counts_E.argmax()].sum().backward()
    assert bool(gate.weight_ED.grad.any())


def test_an_expert_that_stands_in_twice_counts_twice() -> None:
    gate = gate_of(k=2, capacity_factor=0.01, is_filled=False, devices=1)
    plan = gate(X_TD[:24])
    counts_TE = plan.to_dense() / plan.scores_TE
    twice_T = (plan.to_dense() > 0).sum(1) == 1
    # Room for one: most tokens lose both choices and stay with one expert, alone.
    assert int(twice_T.sum()) >= 15
    both_T = ~twice_T
    ratio = (counts_TE.max(1)[0] / counts_TE.masked_fill(counts_TE == 0, 9).min(1)[0])[both_T]
    assert torch.allclose(ratio, torch.ones(int(both_T.sum())), atol=1e-4)


def test_a_token_that_was_turned_away_to_an_expert_of_no_chance_has_a_finite_gradient() -> None:
    gate = RectifyGate(width=1, num_experts=2, devices=2, is_filled=False).train()
    with torch.no_grad():
        gate.weight_ED.copy_(torch.tensor([[95.0], [0.0]]))
    # Room for one: the second token goes to its own device, whose expert has the probability e^-95.
    plan = gate(torch.ones(2, 1))
    assert plan.to_dense()[1].argmax() == 1
    assert torch.allclose(plan.weights_N, torch.ones(2))
    plan.weights_N[plan.experts_N == 1].sum().backward()
    assert gate.weight_ED.grad is not None
    assert bool(gate.weight_ED.grad.isfinite().all())


def test_devices_that_do_not_divide_the_experts_are_refused() -> None:
    with pytest.raises(InputError, match="devices"):
        RectifyGate(width=8, num_experts=6, devices=4)


@pytest.mark.parametrize("size", [1.0, 200.0, 3000.0])
def test_gradients_stay_finite_where_only_unlikely_experts_have_room(size: float) -> None:
    torch.manual_seed(0)
    gate = RectifyGate(width=16, num_experts=8).train()
    plan = gate(torch.randn(18, 16) * size, GateContext(num_items=3))
    (plan.to_dense() * torch.randn(18, 8)).sum().backward()
    assert gate.weight_ED.grad is not None
    assert bool(gate.weight_ED.grad.isfinite().all())
