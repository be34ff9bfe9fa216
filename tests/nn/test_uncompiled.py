"""Hooks count for models that were compiled before them, and compiled code keeps none of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nn.moe_models import decisive, tokens
from turnout.nn.gate_hook import GateHook
from turnout.nn.testtime.rewiring import Rewiring
from turnout.nn.uncompiled import uncompiled


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module, how: str) -> Any:
    if how == "wrapped":
        return torch.compile(model, backend="eager")
    model.compile(backend="eager")
    return model


@torch.no_grad()
def logits(model: Any, ids_BT: Tensor) -> Tensor:
    return model(input_ids=ids_BT).logits


@pytest.mark.parametrize(("how", "warm"), [("wrapped", True), ("wrapped", False), ("in place", True)])
def test_vectors_hold_for_a_compiled_model_and_for_their_block_alone(how, warm) -> None:
    plain, ids_BT = decisive("olmoe", num_hidden_layers=1), tokens(length=6)
    rewiring = Rewiring(model=plain)
    torch.manual_seed(0)
    deltas = [torch.randn_like(delta_BE) * 5 for delta_BE in rewiring.zeros(2)]
    base = logits(plain, ids_BT)
    with rewiring.applied(deltas):
        steered = logits(plain, ids_BT)
    assert (steered - base).abs().max() > 1e-3
    fast = compiled(plain, how)
    if warm:
        assert torch.allclose(logits(fast, ids_BT), base, atol=1e-5)
    with rewiring.applied(deltas):
        assert torch.equal(logits(fast, ids_BT), steered)
    assert torch.allclose(logits(fast, ids_BT), base, atol=1e-5)


def test_what_a_compiled_model_decides_is_recorded() -> None:
    model, ids_BT = decisive("olmoe", num_hidden_layers=1), tokens(length=6)
    hook = GateHook(model)
    fast = compiled(model, "wrapped")
    logits(fast, ids_BT)
    with hook.recording() as records:
        logits(fast, ids_BT)
    assert [len(seen) for seen in records] == [1]


def test_blocks_of_two_threads_may_end_in_any_order() -> None:
    """The first to open is the first to close; the other one still needs its hooks."""
    product = nn.Linear(2, 2)
    fast, u = torch.compile(product, backend="eager"), torch.ones(1, 2)
    fast(u)
    seen: list[int] = []
    opened, closed = threading.Event(), threading.Event()

    def first() -> None:
        with uncompiled():
            opened.set()
            closed.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    opened.wait(10)
    with uncompiled():
        closed.set()
        thread.join()
        handle = product.register_forward_hook(lambda *_: seen.append(1))
        fast(u)
        handle.remove()
    assert seen == [1]


def test_a_stance_of_the_caller_comes_back() -> None:
    fast = torch.compile(nn.Linear(2, 2), backend="eager")
    with torch.compiler.set_stance("fail_on_recompile"):
        with uncompiled():
            fast(torch.ones(1, 2))
        with pytest.raises(RuntimeError, match="fail_on_recompile"):
            fast(torch.ones(1, 2))
