"""The slow truth against formulas: einsum over all experts, equations of slots and of merging."""

from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts, Stack
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan

LOOP = LoopExecutor()


def with_biases(experts: Experts) -> Stack:
    """Draw the biases, if there are any, so that they count."""
    stack = experts.stack()
    for bias in (stack.up_bias_EF, stack.down_bias_ED):
        if bias is not None:
            torch.nn.init.normal_(bias)
    return stack


@pytest.mark.parametrize(
    "setting", [{}, {"is_gated": False, "activation": "gelu"}, {"has_bias": True}], ids=str
)
def test_pairs_are_the_sum_over_all_experts_by_weight(setting: dict) -> None:
    experts = Experts(width=10, inner=6, num_experts=5, **setting)
    stack = with_biases(experts)
    x_TD = torch.randn(9, 10)
    plan = TopKGate(width=10, num_experts=5, k=3)(x_TD)
    h_TEF = torch.einsum("td,efd->tef", x_TD, experts.up_proj)
    if stack.up_bias_EF is not None:
        h_TEF = h_TEF + stack.up_bias_EF
    y_TED = torch.einsum("tei,edi->ted", experts.activate(h_TEF), experts.down_proj)
    if stack.down_bias_ED is not None:
        y_TED = y_TED + stack.down_bias_ED
    expected_TD = torch.einsum("te,ted->td", plan.to_dense(), y_TED)
    assert torch.allclose(LOOP.run(x_TD, plan, experts), expected_TD, atol=1e-5)


def test_slots_follow_the_equations_of_soft_moe() -> None:
    experts = Experts(width=6, inner=4, num_experts=3)
    x_BSD, logits_BSZ = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    plan = SlotPlan(
        num_tokens=10, num_experts=3, dispatch_BSZ=logits_BSZ.softmax(1), combine_BSZ=logits_BSZ.softmax(2)
    )
    slots_BZD = torch.einsum("bsz,bsd->bzd", plan.dispatch_BSZ, x_BSD)
    stack = experts.stack()
    outs_BZD = torch.stack([stack.one(z // 2, slots_BZD[:, z]) for z in range(6)], dim=1)
    expected_BSD = torch.einsum("bsz,bzd->bsd", plan.combine_BSZ, outs_BZD)
    y_TD = LOOP.run(x_BSD.reshape(10, 6), plan, experts)
    assert torch.allclose(y_TD, expected_BSD.reshape(10, 6), atol=1e-5)


def test_a_merged_plan_of_one_hot_mixes_is_that_expert() -> None:
    experts = Experts(width=6, inner=4, num_experts=3, has_bias=True)
    with_biases(experts)
    x_TD = torch.randn(7, 6)
    groups_T = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    mix_GE = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    merged = MergedPlan(num_tokens=7, num_experts=3, mix_GE=mix_GE, groups_T=groups_T)
    sparse = SparsePlan.from_dense(mix_GE[groups_T])
    assert torch.allclose(LOOP.run(x_TD, merged, experts), LOOP.run(x_TD, sparse, experts), atol=1e-6)


def test_a_linear_experts_merge_is_the_mean_of_outputs() -> None:
    experts = Experts(width=6, inner=6, num_experts=3, is_gated=False, activation="identity")
    with torch.no_grad():
        experts.down_proj.copy_(torch.eye(6).expand(3, 6, 6))
    mix_GE = torch.rand(1, 3).softmax(1).requires_grad_()
    x_TD = torch.randn(4, 6)
    merged = MergedPlan(
        num_tokens=4, num_experts=3, mix_GE=mix_GE, groups_T=torch.zeros(4, dtype=torch.int64)
    )
    y_TD = LOOP.run(x_TD, merged, experts)
    assert torch.allclose(
        y_TD, LOOP.run(x_TD, SparsePlan.from_dense(mix_GE.expand(4, 3)), experts), atol=1e-5
    )
    (gradient_GE,) = torch.autograd.grad(y_TD.square().sum(), mix_GE)
    assert bool((gradient_GE != 0).all())


def test_what_does_not_fit_is_refused() -> None:
    experts = Experts(width=6, inner=4, num_experts=3)
    plan = TopKGate(width=6, num_experts=3)(torch.randn(4, 6))
    with pytest.raises(ShapeError, match="\\(T, D\\) = \\(4, 6\\)"):
        LOOP.run(torch.randn(5, 6), plan, experts)
    with pytest.raises(ShapeError, match="E = 3"):
        LOOP.run(torch.randn(4, 6), TopKGate(width=6, num_experts=2)(torch.randn(4, 6)), experts)
    with pytest.raises(InputError, match="one device"):
        LOOP.run(torch.randn(4, 6, device="meta"), plan, experts)
    with pytest.raises(InputError, match="floating point"):
        LOOP.run(torch.ones(4, 6, dtype=torch.int64), plan, experts)
    with pytest.raises(InputError, match="floating point"):
        TopKGate(width=6, num_experts=3)(torch.ones(4, 6, dtype=torch.int64))
    with pytest.raises(InputError, match="stacked"):
        LOOP.run(torch.randn(4, 6), plan, torch.nn.Linear(6, 6))
