"""What works on a device is found once, by whoever asks, and a moment without memory is no answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from turnout.nn import best, late, plan_order, wide_product
from turnout.nn.executors import auto, grouped
from turnout.nn.probe import Probe

PROCESSOR = torch.device("cpu")


def test_an_answer_is_found_once_for_each_case() -> None:
    asked = []

    def length(*case: int) -> int:
        asked.append(case)
        return len(case)

    probe = Probe(length, otherwise=-1)
    assert [probe(1), probe(1), probe(1, 2), probe(1, 2)] == [1, 1, 2, 2]
    assert asked == [(1,), (1, 2)]
    probe.forget()
    assert probe(1) == 1
    assert len(asked) == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no more"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=lambda error: str(error)[:30] or "MemoryError",
)
def test_a_moment_without_memory_says_nothing(error) -> None:
    errors = [error]

    def try_it() -> str:
        if errors:
            raise errors.pop()
        return "works"

    probe = Probe(try_it, otherwise="does not")
    assert [probe(), probe(), probe()] == ["does not", "works", "works"]


@pytest.mark.parametrize("error", [ImportError("none"), NotImplementedError(), RuntimeError("no kernel")])
def test_what_fails_otherwise_is_not_tried_again(error) -> None:
    tried = []

    def try_it() -> bool:
        tried.append(1)
        raise error

    probe = Probe(try_it, otherwise=False)
    assert not probe()
    assert not probe()
    assert len(tried) == 1


def test_nothing_is_tried_while_a_graph_is_captured(monkeypatch) -> None:
    probe = Probe(lambda: "works", otherwise="does not")
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert probe() == "does not"
    assert probe() == "works"
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert probe() == "works", "what is known is known"


class Counts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_whoever_asks_first_changes_nothing_and_notices_nothing() -> None:
    def try_it() -> bool:
        x = torch.ones(2, 2, requires_grad=True)
        y = x @ x
        y.sum().backward()
        return y.dtype == torch.float32 and not y.is_inference() and x.grad is not None

    packed: list[torch.Tensor] = []

    def kept(value: torch.Tensor) -> torch.Tensor:
        packed.append(value)
        return value

    with (
        Counts() as counts,
        torch.autograd.graph.saved_tensors_hooks(kept, lambda value: value),
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode(),
    ):
        assert Probe(try_it, otherwise=False)()
    assert not counts.seen
    assert not packed


def test_threads_get_one_answer() -> None:
    barrier = threading.Barrier(2)

    def try_it() -> object:
        barrier.wait(10)
        return object()

    probe = Probe(try_it, otherwise=None)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: probe(), range(2))
    assert first is second is probe()


def test_all_that_is_tried_is_tried_in_this_way() -> None:
    found = (best._works, wide_product._has_wide, late._looking, plan_order.counting, auto.triton_works)
    assert all(isinstance(one, Probe) for one in (*found, grouped._probe))
    assert wide_product._has_wide(PROCESSOR), "products of single precision"


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_compiled_code_asks_outside_of_its_trace() -> None:
    torch.compiler.reset()
    traced = []

    def try_it(_device: torch.device) -> bool:
        traced.append(torch.compiler.is_compiling())
        return True

    probe = Probe(try_it, otherwise=False)

    def chosen(x_N: torch.Tensor) -> torch.Tensor:
        return x_N + 1 if probe(x_N.device) else x_N

    compiled = torch.compile(chosen, backend="eager")
    for length in (2, 3, 4):
        assert torch.equal(compiled(torch.zeros(length)), torch.ones(length))
    assert traced == [False]
    torch.compiler.reset()
