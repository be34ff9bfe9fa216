"""The Triton kernels give the naive loop's results and gradients; `make test-triton` runs them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.nn.executors.test_fast import SETTINGS, make, plans, require_same
from turnout.nn.executors.contract import Executor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.flops import executed_flops
from turnout.nn.plan import SparsePlan

HAS_TRITON = importlib.util.find_spec("triton") is not None
if not HAS_TRITON or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs Triton, and a GPU or its interpreter", allow_module_level=True)

from turnout.nn.executors import triton_products  # noqa: E402
from turnout.nn.executors.triton_executor import TritonExecutor  # noqa: E402
from turnout.nn.executors.triton_products import Tiles, blocks_of_rows  # noqa: E402

DEVICE = torch.device("cpu" if triton_products.IS_INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch) -> Iterator[None]:
    """Tiles so small that several meet at an edge, and memory that nobody wrote full of NaN."""
    monkeypatch.setattr(triton_products, "tiles_for", lambda *_: Tiles(rows=16, outputs=32, inputs=16))
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def there(plan: SparsePlan) -> SparsePlan:
    """Return the plan on the device, with weights that are a leaf."""
    names = ("tokens_N", "experts_N", "columns_N", "offsets_E")
    moved = {name: getattr(plan, name).to(DEVICE) for name in names}
    return replace(plan, weights_N=plan.weights_N.detach().to(DEVICE).requires_grad_(), **moved)


def results(executor: Executor, x_TD, plan: SparsePlan, experts) -> dict[str, torch.Tensor]:
    x_TD, plan = x_TD.clone().to(DEVICE).requires_grad_(), there(plan)
    weights_N = plan.weights_N
    y_TD = executor.run(x_TD, plan, experts)
    random = torch.Generator().manual_seed(2)
    loss = (y_TD.float() * torch.randn(y_TD.shape, generator=random).to(DEVICE)).sum() + 0 * weights_N.sum()
    leaves = {"x": x_TD, "weights": weights_N} | dict(experts.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {"y": y_TD.detach()} | dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize(("width", "inner"), [(37, 21)])
def test_kernels_give_what_the_loop_gives(dtype, setting, width, inner) -> None:
    experts = make(setting, dtype, width=width, inner=inner).to(DEVICE)
    for num_tokens in (0, 1, 21):
        x_TD = torch.randn(num_tokens, width).to(dtype)
        for plan in plans(num_tokens).values():
            expected = results(LoopExecutor(), x_TD, plan, experts)
            require_same(results(TritonExecutor(), x_TD, plan, experts), expected, dtype)


def test_nothing_is_computed_that_is_not_in_the_plan() -> None:
    experts, plan = make("swiglu", torch.float32, width=16, inner=8).to(DEVICE), plans(37)["ragged"]
    forward = 6 * plan.num_pairs * 16 * 8
    with torch.no_grad():
        x_TD = torch.randn(37, 16).to(DEVICE)
        _, flops = executed_flops(lambda: TritonExecutor().run(x_TD, there(plan), experts))
    assert flops == forward
    _, flops = executed_flops(lambda: results(TritonExecutor(), torch.randn(37, 16), plan, experts))
    assert flops == 3 * forward


def test_blocks_cover_each_experts_rows_once() -> None:
    offsets_E = torch.tensor([0, 5, 5, 37, 40, 40], dtype=torch.int32)
    experts, starts, ends = blocks_of_rows(offsets_E, 40, 16).tolist()
    covered = [
        (e, n) for e, s, end in zip(experts, starts, ends, strict=True) for n in range(s, min(s + 16, end))
    ]
    assert covered == [
        (e, n) for e, (s, end) in {1: (0, 5), 3: (5, 37), 4: (37, 40)}.items() for n in range(s, end)
    ]
    assert len(experts) == 3 + 6
