"""Packed weights give what others give, and are packed again when they have changed."""

from __future__ import annotations

import copy
import functools
import gc
import io
from unittest import mock

import pytest
import torch

from tests.nn.moe_models import decisive
from turnout.nn.executors import packed
from turnout.nn.executors.auto import make_executor
from turnout.nn.executors.packed import PackedExecutor, can_pack
from turnout.nn.executors.precision import has_half
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.experts import Experts, FactoredExperts
from turnout.nn.flops import executed_flops
from turnout.nn.moe import find_moe_layers
from turnout.nn.plan import SparsePlan

HALF = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not has_half(torch.bfloat16), reason="no bf16 instructions")
)
KINDS = {
    "swiglu": {},
    "swiglu and biases": {"has_bias": True},
    "plain and biases": {"is_gated": False, "activation": "gelu", "has_bias": True},
}


def made(kind: str = "swiglu", dtype: torch.dtype = torch.float32) -> Experts:
    torch.manual_seed(0)
    experts = Experts(width=48, inner=40, num_experts=6, **KINDS[kind])  # type: ignore[arg-type]
    for bias in (experts.up_proj_bias, experts.down_proj_bias):
        if bias is not None:
            torch.nn.init.normal_(bias)
    return experts.to(dtype)


def plan_of(num_tokens: int, num_experts: int = 6) -> SparsePlan:
    random = torch.Generator().manual_seed(1)
    indices_TK = torch.rand(num_tokens, num_experts, generator=random).argsort(1)[:, :2].clamp(1, 4)
    return SparsePlan.from_choices(
        torch.rand(num_tokens, 2, generator=random), indices_TK, num_experts=num_experts
    )


@torch.no_grad()
def require_same(
    executor: PackedExecutor, experts: torch.nn.Module, num_tokens: int, dtype: torch.dtype
) -> None:
    x_TD, plan = torch.randn(num_tokens, 48).to(dtype), plan_of(num_tokens)
    expected = SegmentExecutor().run(x_TD, plan, experts)
    found = executor.run(x_TD, plan, experts)
    if dtype == torch.bfloat16:
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("kind", list(KINDS))
def test_pairs_are_those_of_segments(kind, dtype) -> None:
    executor, experts = PackedExecutor(), made(kind, dtype)
    for num_tokens in (0, 1, 2, 37, 700):
        require_same(executor, experts, num_tokens, dtype)


def test_an_expert_is_packed_once_and_when_it_is_used() -> None:
    executor, experts = PackedExecutor(), made()
    with mock.patch.object(packed, "pack", wraps=packed.pack) as pack:
        for _ in range(3):
            require_same(executor, experts, 40, torch.float32)
        # Two products of the four experts that have tokens.
        assert pack.call_count == 8
        executor.forget()
        require_same(executor, experts, 40, torch.float32)
        assert pack.call_count == 16


@torch.no_grad()
def change_in_place(experts: Experts) -> None:
    experts.up_proj.add_(1)


def change_past_the_count(experts: Experts) -> None:
    experts.down_proj.data.mul_(1.01)


def change_the_memory(experts: Experts) -> None:
    experts.up_proj.data = experts.up_proj.data.flip(0)


def change_the_state(experts: Experts) -> None:
    other = Experts(width=48, inner=40, num_experts=6)
    experts.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    "change", [change_in_place, change_past_the_count, change_the_memory, change_the_state]
)
def test_what_has_changed_is_packed_again(change) -> None:
    executor, experts = PackedExecutor(), made()
    require_same(executor, experts, 40, torch.float32)
    change(experts)
    require_same(executor, experts, 40, torch.float32)


def test_gradients_are_recorded_as_ever() -> None:
    experts, plan, x_TD = made(), plan_of(20), torch.randn(20, 48)
    grads = []
    for executor in (SegmentExecutor(), PackedExecutor()):
        loss = executor.run(x_TD, plan, experts).square().sum()
        grads.append(torch.autograd.grad(loss, list(experts.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    with torch.inference_mode():
        expected = SegmentExecutor().run(x_TD, plan, experts)
        torch.testing.assert_close(PackedExecutor().run(x_TD, plan, experts), expected)


def test_copies_go_with_the_weights_and_not_into_copies_of_the_executor() -> None:
    executor, experts = PackedExecutor(), made()
    require_same(executor, experts, 20, torch.float32)
    assert len(executor._packs) == 2
    file = io.BytesIO()
    torch.save(executor, file)
    file.seek(0)
    for other in (copy.deepcopy(executor), torch.load(file, weights_only=False)):
        assert not len(other._packs)
        require_same(other, experts, 20, torch.float32)
    del experts
    gc.collect()
    assert not len(executor._packs)


def test_operations_are_counted() -> None:
    experts, plan, x_TD = made(), plan_of(20), torch.randn(20, 48)
    # What is tried first must not be counted.
    packed._probe.cache_clear()
    with torch.no_grad():
        for executor in (SegmentExecutor(), PackedExecutor()):
            _, count = executed_flops(functools.partial(executor.run, x_TD, plan, experts))
            assert count == 2 * plan.num_pairs * 3 * 48 * 40


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_experts_of_a_checkpoint_and_of_factors(family) -> None:
    layer = find_moe_layers(decisive(family))[0]
    plan, x_TD = plan_of(30, layer.num_experts), torch.randn(30, 32)
    if layer.num_experts == 4:
        plan = SparsePlan.from_choices(torch.rand(30, 2), torch.randint(4, (30, 2)), num_experts=4)
    executor = PackedExecutor()
    with torch.no_grad():
        expected = make_executor("loop").run(x_TD, plan, layer.experts)
        for _ in range(2):
            torch.testing.assert_close(
                executor.run(x_TD, plan, layer.experts), expected, rtol=1e-4, atol=1e-5
            )
    assert len(executor._packs) == 2
    factored = FactoredExperts(width=48, inner=40, num_experts=6)
    require_same(executor, factored, 20, torch.float32)


def test_other_devices_and_precisions_are_not_packed() -> None:
    assert can_pack(torch.zeros(1))
    assert not can_pack(torch.zeros(1, dtype=torch.float64))
    assert not can_pack(torch.zeros(1, device="meta"))
    executor = PackedExecutor()
    require_same(executor, made("swiglu", torch.float64), 20, torch.float64)
    assert not len(executor._packs)
