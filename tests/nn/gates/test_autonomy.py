from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.executors.auto import AutoExecutor
from turnout.nn.executors.batched import BatchedExecutor
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.experts import Experts, FactoredExperts
from turnout.nn.gates.autonomy import AutonomyGate
from turnout.nn.gates.contract import GateContext
from turnout.nn.mixture import MoE

X_TD = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))


def layer(**settings):
    experts = FactoredExperts(width=12, inner=10, num_experts=6, rank=4)
    return MoE(gate=AutonomyGate(width=12, num_experts=6, **settings), experts=experts)


def slow(moe, k):
    """The layer as the paper writes it: every expert begins, the best go on from where they are."""
    own, rows = moe.experts, []
    for x_D in X_TD:
        begun = [own.first_ERD[e] @ x_D for e in range(6)]
        best = sorted(range(6), key=lambda e: -float(begun[e].norm()))[:k]
        weights = torch.stack([begun[e].norm() for e in best]).softmax(0)
        outs = []
        for e in best:
            inner_I = torch.nn.functional.silu(own.wide_EIR[e] @ begun[e]) * (own.up_EID[e] @ x_D)
            outs.append(own.down_EDI[e] @ inner_I)
        rows.append(sum(w * out for w, out in zip(weights, outs, strict=True)))
    return torch.stack(rows)


def test_it_is_the_layer_in_which_every_expert_begins_and_the_longest_activations_go_on() -> None:
    for k in (1, 3):
        moe = layer(k=k)
        with torch.no_grad():
            assert torch.allclose(moe(X_TD), slow(moe, k), atol=1e-5)


def test_experts_decide_themselves_and_are_taught_by_their_own_weights() -> None:
    moe = layer(k=1)
    assert list(moe.gate.parameters()) == []
    with torch.no_grad():
        moe.experts.first_ERD[2].mul_(50)
    moe(X_TD)
    assert moe.plan.counts_E.tolist() == [0, 0, 50, 0, 0, 0]
    pair = layer(k=2)
    pair(X_TD)
    # The weights alone, whatever the outputs are: longer activations count more.
    pair.plan.to_dense()[:, 0].sum().backward()
    assert bool(pair.experts.first_ERD.grad.any())


def test_a_turn_of_the_inner_space_changes_nothing_and_the_order_of_experts_is_nobodys() -> None:
    moe = layer()
    expected = moe(X_TD)
    dense_TE = moe.plan.to_dense()
    turn_ERR = torch.linalg.qr(torch.randn(6, 4, 4))[0]
    order = [4, 2, 0, 5, 1, 3]
    with torch.no_grad():
        moe.experts.first_ERD.copy_(turn_ERR @ moe.experts.first_ERD)
        moe.experts.wide_EIR.copy_(moe.experts.wide_EIR @ turn_ERR.mT)
        assert torch.allclose(moe(X_TD), expected, atol=1e-5)
        for value in moe.experts.parameters():
            value.copy_(value[order])
        assert torch.allclose(moe(X_TD), expected, atol=1e-5)
    assert torch.allclose(moe.plan.to_dense(), dense_TE[:, order], atol=1e-5)


def test_a_token_and_its_negative_are_alike_and_a_longer_one_is_sharper() -> None:
    moe = layer(k=3)
    moe(X_TD)
    short = moe.plan
    moe(-X_TD)
    assert torch.allclose(short.to_dense(), moe.plan.to_dense(), atol=1e-6)
    moe(4 * X_TD)
    assert torch.equal(short.experts_N, moe.plan.experts_N)
    assert bool((moe.plan.to_dense().max(1)[0] > short.to_dense().max(1)[0]).all())


def test_experts_of_one_piece_are_judged_by_their_first_projection() -> None:
    own = Experts(width=12, inner=5, num_experts=6)
    plan = AutonomyGate(width=12, num_experts=6, is_normalised=False)(X_TD, GateContext(experts=own))
    norms_TE = torch.stack([(X_TD @ own.up_proj[e].T).norm(dim=1) for e in range(6)], 1)
    assert torch.allclose(plan.logits_TE, norms_TE, atol=1e-4)
    best_TK, indices_TK = norms_TE.softmax(1).topk(2)
    assert torch.allclose(plan.to_dense(), torch.zeros(50, 6).scatter(1, indices_TK, best_TK), atol=1e-5)


@pytest.mark.parametrize(
    "executor", [SegmentExecutor(), BatchedExecutor(), AutoExecutor()], ids=lambda one: type(one).__name__
)
def test_any_executor_runs_factored_experts_and_teaches_both_factors(executor: Executor) -> None:
    moe = layer()
    plan = moe.gate(X_TD, GateContext(experts=moe.experts))
    found = []
    for one in (LoopExecutor(), executor):
        moe.zero_grad()
        y_TD = one.run(X_TD, plan, moe.experts)
        y_TD.square().sum().backward(retain_graph=True)
        found.append([y_TD.detach(), moe.experts.first_ERD.grad.clone(), moe.experts.wide_EIR.grad.clone()])
    for slow_value, value in zip(*found, strict=True):
        assert torch.allclose(slow_value, value, atol=1e-3, rtol=1e-4)


def test_factors_have_the_parameters_that_the_docs_promise_and_a_rank_of_none_is_a_third() -> None:
    wide, narrow = Experts(width=12, inner=20, num_experts=3), 3 * 12
    own = FactoredExperts(width=12, inner=round((narrow * 20 - 4 * 12) / (4 + 24)), num_experts=3)
    assert own.rank == 4
    counts = [sum(p.numel() for p in one.parameters()) for one in (own, wide)]
    assert counts[0] == counts[1]
    with pytest.raises(InputError, match="rank"):
        FactoredExperts(width=12, inner=20, num_experts=3, rank=0)
