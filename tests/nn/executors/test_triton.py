"""The Triton kernels give the naive loop's results and gradients; `make test-triton` runs them."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.nn.executors.test_fast import SETTINGS, make, plans, require_same, there
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.flops import executed_flops
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_order import by_expert

HAS_TRITON = importlib.util.find_spec("triton") is not None
if not HAS_TRITON or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs Triton, and a GPU or its interpreter", allow_module_level=True)

from turnout.nn import plan_order, plan_triton  # noqa: E402
from turnout.nn.executors import auto, triton_executor, triton_products, triton_tiles  # noqa: E402
from turnout.nn.executors.triton_executor import TritonExecutor  # noqa: E402
from turnout.nn.executors.triton_layout import lay_out  # noqa: E402
from turnout.nn.executors.triton_tiles import Tiles  # noqa: E402

DEVICE = torch.device("cpu" if triton_tiles.IS_INTERPRETED else "cuda")


def small(kind: str, *_: object) -> Tiles:
    return Tiles(rows=16, outputs=32, inputs=16, group=2, stages=3, stays=kind == "product")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch) -> Iterator[None]:
    """Tiles so small that several meet at an edge, and memory that nobody wrote full of NaN."""
    monkeypatch.setattr(triton_tiles, "tiles_for", small)
    monkeypatch.setattr(triton_tiles, "rows_for", lambda *_: 16)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def results(executor: Executor, x_TD, plan: SparsePlan, experts) -> dict[str, torch.Tensor]:
    x_TD, plan = x_TD.clone().to(DEVICE).requires_grad_(), there(plan, DEVICE)
    weights_N = plan.weights_N
    y_TD = executor.run(x_TD, plan, experts)
    random = torch.Generator().manual_seed(2)
    loss = (y_TD.float() * torch.randn(y_TD.shape, generator=random).to(DEVICE)).sum() + 0 * weights_N.sum()
    leaves = {"x": x_TD, "weights": weights_N} | dict(experts.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {"y": y_TD.detach()} | dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize(("width", "inner"), [(37, 21), (64, 32)])
def test_kernels_give_what_the_loop_gives(dtype, setting, width, inner) -> None:
    experts = make(setting, dtype, width=width, inner=inner).to(DEVICE)
    for num_tokens in (0, 1, 21):
        x_TD = torch.randn(num_tokens, width).to(dtype)
        for plan in plans(num_tokens).values():
            expected = results(LoopExecutor(), x_TD, plan, experts)
            require_same(results(TritonExecutor(), x_TD, plan, experts), expected, dtype)


def test_double_precision_is_kept() -> None:
    experts, x_TD, plan = (
        make("swiglu", torch.float64, width=32, inner=32).to(DEVICE),
        torch.randn(21, 32),
        plans(21),
    )
    expected = results(LoopExecutor(), x_TD.double(), plan["spread"], experts)
    require_same(results(TritonExecutor(), x_TD.double(), plan["spread"], experts), expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_may_lie_turned_in_memory(dtype) -> None:
    experts, x_TD, plan = make("swiglu", dtype, width=64, inner=32), torch.randn(21, 64), plans(21)["spread"]
    turned = copy.deepcopy(experts)
    for name in ("up_proj", "down_proj"):
        weight = getattr(experts, name).detach()
        setattr(turned, name, torch.nn.Parameter(weight.transpose(1, 2).contiguous().transpose(1, 2)))
    expected = results(LoopExecutor(), x_TD.to(dtype), plan, experts.to(DEVICE))
    require_same(results(TritonExecutor(), x_TD.to(dtype), plan, turned.to(DEVICE)), expected, dtype)


def test_fields_of_a_plan_may_lie_apart() -> None:
    experts, x_TD, plan = (
        make("swiglu", torch.float32, width=32, inner=32),
        torch.randn(21, 32),
        plans(21)["spread"],
    )
    apart: dict[str, Any] = {
        name: torch.stack([getattr(plan, name).detach()] * 2, dim=1)[:, 0]
        for name in ("tokens_N", "columns_N", "offsets_E")
    }
    ones_N = torch.ones(()).expand(plan.num_pairs)
    with torch.no_grad():
        experts = experts.to(DEVICE)
        usual, other = (
            replace(plan, weights_N=torch.ones(plan.num_pairs)),
            replace(plan, weights_N=ones_N, **apart),
        )
        expected_TD = LoopExecutor().run(x_TD.to(DEVICE), moved(usual), experts)
        found_TD = TritonExecutor().run(x_TD.to(DEVICE), moved(other), experts)
    assert torch.allclose(found_TD, expected_TD, atol=1e-5)


def moved(plan: SparsePlan) -> SparsePlan:
    """Return the plan on the device, its fields lying as they do."""
    names = ("tokens_N", "experts_N", "columns_N", "offsets_E", "weights_N")
    fields: dict[str, Any] = {name: getattr(plan, name) for name in names}
    if DEVICE.type != "cpu":
        fields = {
            name: torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=DEVICE).copy_(
                value
            )
            if 0 not in value.stride()
            else value.to(DEVICE)
            for name, value in fields.items()
        }
    return replace(plan, **fields)


def test_nothing_is_computed_that_is_not_in_the_plan() -> None:
    experts, plan = make("swiglu", torch.float32, width=16, inner=8).to(DEVICE), plans(37)["ragged"]
    forward = 6 * plan.num_pairs * 16 * 8
    with torch.no_grad():
        x_TD = torch.randn(37, 16).to(DEVICE)
        _, flops = executed_flops(lambda: TritonExecutor().run(x_TD, there(plan, DEVICE), experts))
    assert flops == forward
    _, flops = executed_flops(lambda: results(TritonExecutor(), torch.randn(37, 16), plan, experts))
    assert flops == 3 * forward


def test_blocks_cover_each_experts_rows_once() -> None:
    offsets_E = torch.tensor([0, 5, 5, 37, 40, 40], dtype=torch.int32, device=DEVICE)
    nobody = torch.zeros(40, dtype=torch.int64, device=DEVICE)
    pairs = torch.arange(40, device=DEVICE)
    blocks, place_TK = lay_out(nobody, pairs, offsets_E, num_tokens=2, num_columns=40, rows=16)
    *lists, busy = blocks.tolist()
    num_blocks = 3 + 6
    experts, starts, ends = (lists[at : at + num_blocks] for at in range(0, 3 * num_blocks, num_blocks))
    covered = [
        (e, n) for e, s, end in zip(experts, starts, ends, strict=True) for n in range(s, min(s + 16, end))
    ]
    assert covered == [
        (e, n) for e, (s, end) in {1: (0, 5), 3: (5, 37), 4: (37, 40)}.items() for n in range(s, end)
    ]
    assert busy == 4
    assert all(s < end for s, end in zip(starts[:busy], ends[:busy], strict=True))
    assert place_TK.tolist() == [list(range(40)), [-1] * 40]


@pytest.mark.parametrize(("num_tokens", "k", "num_experts"), [(0, 2, 4), (1, 1, 1), (37, 3, 6), (700, 2, 64)])
def test_counting_sorts_as_a_stable_sort_does(monkeypatch, num_tokens, k, num_experts) -> None:
    monkeypatch.setattr(plan_triton, "BLOCK", 128)
    indices_TK = torch.rand(num_tokens, max(num_experts, k)).argsort(1)[:, :k].clamp(max=num_experts - 1)
    sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    found = plan_triton.by_counting(indices_TK.to(DEVICE), num_experts, sign)
    for value, expected in zip(found, by_expert(indices_TK, num_experts, None), strict=True):
        assert value.dtype == expected.dtype
        assert torch.equal(value.cpu(), expected)
    assert int(sign) == 0


def test_choices_may_lie_apart() -> None:
    wide_TK = torch.rand(50, 6).argsort(1)
    sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    for columns in (slice(0, 1), slice(1, 3)):
        found = plan_triton.by_counting(wide_TK.to(DEVICE)[:, columns], 6, sign)
        for value, expected in zip(found, by_expert(wide_TK[:, columns], 6, None), strict=True):
            assert torch.equal(value.cpu(), expected)


def test_an_unknown_expert_gives_a_sign_and_harms_nothing() -> None:
    sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    wrong_TK = torch.tensor([[0, 7], [1, -2], [2, 3]], device=DEVICE)
    order_N, *_ = plan_triton.by_counting(wrong_TK, 4, sign)
    assert int(sign) == 1
    assert sorted(order_N.tolist()) == list(range(6))


def test_what_backward_alone_needs_is_not_kept_for_an_answer(monkeypatch) -> None:
    kept = []

    def spied(*args, is_kept: bool):
        kept.append(is_kept)
        return triton_products.pairs_swiglu(*args, is_kept=is_kept)

    monkeypatch.setattr(triton_executor, "pairs_swiglu", spied)
    experts, plan, x_TD = (
        make("swiglu", torch.float32, width=32, inner=32).to(DEVICE),
        plans(21)["spread"],
        torch.randn(21, 32),
    )
    with torch.no_grad():
        answer_TD = TritonExecutor().run(x_TD.to(DEVICE), there(plan, DEVICE), experts)
    learned_TD = TritonExecutor().run(x_TD.to(DEVICE), there(plan, DEVICE), experts)
    assert kept == [False, True]
    assert torch.equal(answer_TD, learned_TD)


def test_even_sizes_of_half_precision_are_described(monkeypatch) -> None:
    asked = []

    def spied(*args) -> bool:
        asked.append(triton_tiles.are_described(*args))
        return asked[-1]

    monkeypatch.setattr("turnout.nn.executors.triton_products.are_described", spied)
    experts = make("swiglu", torch.bfloat16, width=64, inner=32).to(DEVICE)
    results(TritonExecutor(), torch.randn(21, 64).bfloat16(), plans(21)["spread"], experts)
    # Both products forward and backward, and both gradients.
    copies = DEVICE.type == "cpu" or torch.cuda.get_device_capability()[0] >= triton_tiles.COPIES
    assert asked == [copies] * 6


def test_probes_see_what_works() -> None:
    assert plan_order.counting(6, DEVICE) is not None
    assert plan_order.counting(plan_triton.MOST_EXPERTS + 1, DEVICE) is None
    assert auto.triton_works(DEVICE, torch.bfloat16)


def test_a_kernel_that_sorts_wrongly_is_not_taken(monkeypatch) -> None:
    real = plan_triton.by_counting
    monkeypatch.setattr(plan_triton, "by_counting", lambda *args: [part.flip(0) for part in real(*args)])
    assert plan_order.counting(5, DEVICE) is None
