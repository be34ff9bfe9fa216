"""What one thread has set decides in no forward of another: refused, and not silently mixed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import pytest
import torch
from torch import Tensor

from tests.nn.depth.duo.setup import LAYERS, make_duo, make_ids
from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import InputError
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.gate_hook import GateHook
from turnout.nn.one_thread import OneThread
from turnout.nn.testtime.rewiring import Rewiring
from turnout.nn.tiny import tiny_llama

Case = tuple[Callable[[], AbstractContextManager[object]], Callable[[], Tensor]]
"""Opens a context, and runs the model plainly."""


def duo() -> Case:
    one = make_duo()
    return lambda: one.forced([0] * LAYERS), lambda: one.model(input_ids=make_ids(1, 5)).logits


def routed() -> Case:
    model = tiny_llama(vocab_size=30, width=32, layers=LAYERS, heads=2)
    one = RoutedDepth(model=model)
    return lambda: one.forced([0] * LAYERS), lambda: model(input_ids=make_ids(1, 5)).logits


def recorded() -> Case:
    model = decisive("olmoe")
    hook = GateHook(model)
    return hook.recording, lambda: model(input_ids=tokens(batch=1)).logits


def rewired() -> Case:
    rewiring = Rewiring(model=decisive("olmoe"))
    zeros = rewiring.zeros(1)
    return lambda: rewiring.applied(zeros), lambda: rewiring.model(input_ids=tokens(batch=1)).logits


@pytest.mark.parametrize("make", [duo, routed, recorded, rewired])
def test_another_thread_neither_runs_nor_opens_inside(make: Callable[[], Case]) -> None:
    opened, run = make()
    with torch.no_grad(), ThreadPoolExecutor(1) as other:
        before = run()
        with opened(), opened():  # the same thread may nest
            run()
            for task in (run, lambda: opened().__enter__()):
                with pytest.raises(InputError, match="another thread runs the model"):
                    other.submit(task).result()
        assert torch.equal(other.submit(run).result(), before)


def test_what_was_opened_here_may_be_closed_elsewhere() -> None:
    """As where an event loop closes a generator."""
    one, stack = OneThread("it"), ExitStack()
    stack.enter_context(one.held())
    with ThreadPoolExecutor(1) as other:
        other.submit(stack.close).result()
        other.submit(one.check).result()
    one.check()
