"""The Triton kernels give the naive loop's results and gradients; `make test-triton` runs them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.nn.executors import test_fast
from tests.nn.executors.needs_triton import need_triton
from tests.nn.executors.test_fast import SETTINGS, make, plans, there
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.flops import executed_flops
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_order import by_expert

need_triton()

from turnout.nn import plan_order, plan_triton  # noqa: E402
from turnout.nn.executors import (  # noqa: E402
    auto,
    triton_described,
    triton_executor,
    triton_kernels,
    triton_layout,
    triton_products,
    triton_rows,
    triton_tiles,
)
from turnout.nn.executors.triton_executor import TritonExecutor  # noqa: E402
from turnout.nn.executors.triton_layout import lay_out, places  # noqa: E402
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


def require_same(found: dict, expected: dict, dtype: torch.dtype) -> None:
    # The interpreter cuts numbers to half precision where a device rounds them: off by twice as much.
    times = 2.0 if triton_tiles.IS_INTERPRETED and dtype != torch.float32 else 1.0
    test_fast.require_same(found, expected, dtype, times=times)


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
    assert torch.equal(places(nobody, pairs, num_tokens=2, num_columns=40), place_TK)


@pytest.mark.parametrize("num_experts", [1, 16, 17, 40, 300])
def test_blocks_of_many_experts_are_looked_for_in_parts(monkeypatch, num_experts) -> None:
    monkeypatch.setattr(triton_layout, "EXPERTS", 16)
    counts_E = torch.randint(4, (num_experts,)) * torch.randint(20, (num_experts,))
    offsets_E = counts_E.cumsum(0).int()
    found = triton_layout.blocks_of(offsets_E.to(DEVICE), num_pairs=int(offsets_E[-1]), rows=16).tolist()
    starts_E = offsets_E - counts_E
    expected = [
        (e, start, end)
        for e, (first, end) in enumerate(zip(starts_E.tolist(), offsets_E.tolist(), strict=True))
        for start in range(first, end, 16)
    ]
    num_blocks = len(found) // 3
    blocks = list(zip(*(found[at * num_blocks : (at + 1) * num_blocks] for at in range(3)), strict=True))
    assert found[-1] == len(expected)
    assert blocks == expected + [(0, 0, 0)] * (num_blocks - len(expected))


Launch = tuple[str, tuple[int, ...], dict[str, Any]]
"""A kernel's name, its grid, and what it is compiled for."""


def spied(monkeypatch, *, is_run: bool = True) -> list[Launch]:
    """Return where launches of the kernels will be noted; they run unless `is_run` says no."""
    found: list[Launch] = []

    class Spied:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*args: Any, **kwargs: Any) -> None:
                kinds = self.kernel.fn.__annotations__
                given = dict(zip(inspect.signature(self.kernel.fn).parameters, args, strict=False)) | kwargs
                constants = {name: given[name] for name in kinds if kinds[name] == "tl.constexpr"}
                found.append((self.name, grid, constants))
                if is_run:
                    self.kernel[grid](*args, **kwargs)

            return launch

    for module in (triton_rows, triton_kernels, triton_described, triton_layout, plan_triton):
        for name, kernel in list(vars(module).items()):
            if name.endswith("_kernel"):
                monkeypatch.setattr(module, name, Spied(f"{module.__name__.split('.')[-1]}.{name}", kernel))
    return found


def test_a_free_number_of_choices_compiles_no_kernel_anew(monkeypatch) -> None:
    launches, compiled = spied(monkeypatch), []
    experts = make("swiglu", torch.float32, width=32, inner=32).to(DEVICE)
    sign = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    for k in (2, 3, 5):
        indices_TK = torch.rand(21, 6).topk(k).indices
        weights_TK = torch.rand(21, k, requires_grad=True)
        plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=6)
        results(TritonExecutor(), torch.randn(21, 32), plan, experts)
        plan_triton.by_counting(indices_TK.to(DEVICE), 6, sign)
        compiled.append({(name, *sorted(constants.items())) for name, _, constants in launches})
        launches.clear()
    assert len(compiled[0]) >= 8
    assert compiled[1] == compiled[0]
    assert compiled[2] == compiled[0]


def test_places_are_found_only_where_they_are_read(monkeypatch) -> None:
    launches, plan = spied(monkeypatch), plans(400)["spread"]
    pairs = -(-plan.num_pairs // triton_layout.PAIRS)
    blocks = -(-(-(-plan.num_pairs // 16) + plan.num_experts) // triton_layout.BLOCKS)
    # One by one for each product, and once for the sums of tokens.
    programs = {"swiglu": [blocks + pairs], "plain and biases": [blocks, blocks, pairs]}
    for setting, expected in programs.items():
        experts = make(setting, torch.float32, width=16, inner=16).to(DEVICE)
        with torch.no_grad():
            TritonExecutor().run(torch.randn(400, 16).to(DEVICE), there(plan, DEVICE), experts)
        found = [grid for name, grid, _ in launches if name == "triton_layout._layout_kernel"]
        assert found == [(number,) for number in expected]
        launches.clear()


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 1), (torch.bfloat16, 32)], ids=str)
def test_a_gradient_of_very_many_experts_fits_on_the_grid_of_a_device(monkeypatch, dtype, width) -> None:
    launches = spied(monkeypatch, is_run=False)
    left_NJ, right_NK = (torch.zeros(40, size, dtype=dtype, device=DEVICE) for size in (width, 16))
    offsets_E = torch.full((70_000,), 40, dtype=torch.int32, device=DEVICE)
    triton_products.pairs_gradient(left_NJ, right_NK, None, offsets_E)
    ((_, grid, _),) = launches
    assert grid == (70_000,)


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
