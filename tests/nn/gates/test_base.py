from __future__ import annotations

from itertools import permutations

import torch

from turnout.nn.gates.base import BaseGate
from turnout.nn.gates.contract import GateContext

# Everybody's favourite is the first expert.
X_TD = torch.randn(48, 8, generator=torch.Generator().manual_seed(0)) + torch.eye(8)[0] * 3


def drawn() -> BaseGate:
    gate = BaseGate(width=8, num_experts=4)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(8)[:4])
    return gate


def test_training_gives_every_expert_as_many_tokens_and_eval_gives_each_token_its_best() -> None:
    gate = drawn()
    assert gate(X_TD).counts_E.tolist() == [12] * 4
    plan = gate.eval()(X_TD)
    assert plan.counts_E.max() > 40
    assert torch.equal(plan.experts_N[plan.tokens_N.argsort()], plan.logits_TE.argmax(1))


def test_the_assignment_is_the_best_one() -> None:
    gate, x_TD = drawn(), X_TD[:4]
    plan = gate(x_TD)
    found = float(plan.logits_TE[plan.tokens_N, plan.experts_N].detach().sum())
    z_TE = plan.logits_TE.detach()
    best = max(sum(float(z_TE[t, e]) for t, e in enumerate(order)) for order in permutations(range(4)))
    assert abs(found - best) < 0.05


def test_the_weight_is_the_sigmoid_of_the_score() -> None:
    plan = drawn()(X_TD)
    assert torch.allclose(plan.weights_N, plan.logits_TE[plan.tokens_N, plan.experts_N].sigmoid())


def test_padding_takes_no_place_in_the_assignment() -> None:
    mask_BS = torch.ones(2, 24, dtype=torch.bool)
    mask_BS[0, 8:] = False
    assert drawn()(X_TD, GateContext(num_items=2, mask_BS=mask_BS)).counts_E.tolist() == [8] * 4


def test_centroids_begin_orthogonal() -> None:
    weight_ED = BaseGate(width=8, num_experts=4).weight_ED
    assert torch.allclose(weight_ED @ weight_ED.T, 0.01 * torch.eye(4), atol=1e-6)
