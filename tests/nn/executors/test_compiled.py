"""Experts under `torch.compile` give what they give without, whatever the process keeps for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from turnout.nn import late
from turnout.nn.executors.auto import make_executor
from turnout.nn.executors.memory import LARGE_BYTES
from turnout.nn.executors.products import segment_product
from turnout.nn.experts import Experts
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.late import refuse_arrived, sign
from turnout.nn.mixture import MoE
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_order import by_expert, sorted_short, unknown_expert

pytestmark = [
    # Of torch's compiler, which asks each tensor for its gradient and makes contexts of its own.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated"),
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("has_gradients", [False, True])
def test_a_layer_whose_rows_are_large_is_compiled(has_gradients: bool) -> None:
    gate = TopKGate(width=128, num_experts=4)
    layer = MoE(gate=gate, experts=Experts(width=128, inner=256, num_experts=4))
    x_BSD, found = torch.randn(1, 4500, 128), []
    assert x_BSD.nbytes * gate.k >= LARGE_BYTES
    for function in (torch.compile(layer, backend="eager"), layer):
        given = x_BSD.clone().requires_grad_(has_gradients)
        with torch.set_grad_enabled(has_gradients):
            # Twice: what the first pass makes waits for the second.
            both = [function(given) for _ in range(2)]
            if has_gradients:
                both[1].square().sum().backward()
        found.append([*both, given.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("executor", ["batched", "grouped", "packed", "segments"])
def test_every_executor_of_a_processor_is_compiled(executor: str) -> None:
    run, experts = make_executor(executor).run, Experts(width=256, inner=512, num_experts=8)
    plan = SparsePlan.from_choices(torch.rand(70, 2), torch.rand(70, 8).topk(2).indices, num_experts=8)
    x_TD, found = torch.randn(70, 256), []
    assert experts.down_proj.nbytes >= LARGE_BYTES
    for function in (
        torch.compile(lambda x: run(x, plan, experts), backend="eager"),
        lambda x: run(x, plan, experts),
    ):
        experts.zero_grad()
        y_TD = function(x_TD)
        y_TD.square().sum().backward()
        found.append((y_TD.detach(), experts.up_proj.grad, experts.down_proj.grad))
    torch.testing.assert_close(*found)


def test_an_error_has_one_sign_in_compiled_code_too() -> None:
    processor = torch.device("cpu")
    place = sign(unknown_expert(5), processor)

    def marked(x_N: Tensor) -> Tensor:
        return x_N + sign(unknown_expert(5), processor).sum()

    compiled = torch.compile(marked, backend="eager")
    taken = sum(len(board.errors) for board in late._waiting.boards)
    for length in (2, 3, 4):
        assert torch.equal(compiled(torch.ones(length)), torch.ones(length))
    assert sum(len(board.errors) for board in late._waiting.boards) == taken
    assert sign(unknown_expert(5), processor) is place
    refuse_arrived(wait=True)


def _product(x_ND: Tensor, offsets_E: Tensor) -> Tensor:
    weight_EJD = torch.arange(5.0 * 3 * 4).view(5, 3, 4).sin()
    return segment_product(x_ND, weight_EJD, offsets_E)


def _order(x_ND: Tensor, offsets_E: Tensor) -> Tensor:
    indices_TK = torch.stack((offsets_E, offsets_E.flip(0))).long() % 5
    return sorted_short(indices_TK, 5)[0] + x_ND.sum()


def _long_order(x_ND: Tensor, offsets_E: Tensor) -> Tensor:
    indices_TK = torch.stack((offsets_E, offsets_E.flip(0))).long() % 5
    return by_expert(indices_TK, 5, None)[0] + x_ND.sum()


@pytest.mark.parametrize("function", [_product, _order, _long_order])
def test_another_set_of_counts_compiles_nothing_anew(function) -> None:
    compiled, frames = torch.compile(function, backend="eager"), []
    for counts in ([3, 0, 4, 1, 4], [1, 1, 1, 1, 8], [0, 0, 12, 0, 0], [2, 3, 2, 3, 2], [12, 0, 0, 0, 0]):
        x_ND = torch.randn(12, 4)
        offsets_E = torch.tensor(counts).cumsum(0).int()
        assert torch.equal(compiled(x_ND, offsets_E), function(x_ND, offsets_E))
        frames.append(counters["frames"]["total"])
    assert frames == frames[:1] * 5
