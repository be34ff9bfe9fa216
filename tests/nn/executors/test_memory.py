"""Memory of gradients is zero where nobody writes, and waits for the next step only once nobody reads it."""

from __future__ import annotations

import mmap

import pytest
import torch

from turnout.nn.executors import memory
from turnout.nn.executors.auto import make_executor
from turnout.nn.executors.memory import fresh_gradient, release
from turnout.nn.experts import Experts
from turnout.nn.plan import SparsePlan

WEIGHT = torch.empty(8, 512, 512)

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MAP_ANONYMOUS"), reason="no anonymous pages here")


@pytest.fixture(autouse=True)
def empty():
    release()
    yield
    release()


def test_idle_experts_are_zero_in_new_memory_and_in_used() -> None:
    first = fresh_gradient(WEIGHT, {1, 2})
    assert first.shape == WEIGHT.shape
    assert not first.any()
    first.fill_(float("nan"))[[0, 3, 4, 5, 6, 7]] = 0
    place = first.data_ptr()
    del first
    again = fresh_gradient(WEIGHT, {2, 7})
    assert again.data_ptr() == place, "the same pages"
    again[[2, 7]] = 1.0
    assert not again[[0, 1, 3, 4, 5, 6]].any()
    del again
    assert not fresh_gradient(WEIGHT, set()).any()


@pytest.mark.parametrize("shape", [(8, 512, 512), (5, 601, 501)], ids=["whole pages", "pages of two experts"])
@pytest.mark.parametrize("busy", [{0, 1}, {3}, set()])
def test_idle_experts_are_zero_whoever_wrote_into_the_memory_meanwhile(
    shape: tuple[int, int, int], busy: set[int]
) -> None:
    """Autograd adds a second gradient in place, and clipping multiplies all of it, with NaN too."""
    weight = torch.empty(shape)
    fresh_gradient(weight, {0, 2}).fill_(float("nan"))
    for step in range(3):
        grad = fresh_gradient(weight, busy)
        grad[list(busy)] = 1.0
        idle = sorted(set(range(shape[0])) - busy)
        assert not grad[idle].any(), f"step {step}"
        assert (grad[list(busy)] == 1.0).all()
        grad.add_(1.0)
        del grad


@pytest.mark.parametrize("name", ["auto", "segments", "grouped", "batched"])
def test_gradients_of_other_steps_never_come_back(name: str) -> None:
    torch.manual_seed(0)
    experts = Experts(width=256, inner=256, num_experts=8)
    executor = make_executor(name)

    def step(chosen: list[int]) -> None:
        indices_T1 = torch.tensor(chosen)[torch.randint(len(chosen), (32, 1))]
        plan = SparsePlan.from_choices(torch.rand(32, 1), indices_T1, num_experts=8)
        executor.run(torch.randn(32, 256), plan, experts).square().mean().backward()

    step([0, 1])
    step([2, 3])
    torch.nn.utils.clip_grad_norm_(experts.parameters(), float("nan"))
    experts.zero_grad(set_to_none=True)
    for _ in range(4):
        step([0, 1])
        for weight in experts.parameters():
            assert weight.grad is not None
            assert not weight.grad[2:].any()
        experts.zero_grad(set_to_none=True)


def test_memory_that_somebody_reads_is_not_handed_out_again() -> None:
    grad = fresh_gradient(WEIGHT, {0})
    grad[0] = 3.0
    row, place = grad[0, 5], grad.data_ptr()
    del grad
    other = fresh_gradient(WEIGHT, {0})
    assert other.data_ptr() != place
    other[0] = 4.0
    assert (row == 3.0).all()


def test_other_shapes_and_precisions_have_pages_of_their_own() -> None:
    grad = fresh_gradient(WEIGHT, set(range(8)))
    del grad
    half = fresh_gradient(WEIGHT.bfloat16(), set())
    assert half.dtype == torch.bfloat16
    assert not half.any()
    assert len(memory._waiting) == 1


def test_what_waits_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(memory, "KEPT_BYTES", 2 * WEIGHT.nbytes)
    held = [fresh_gradient(WEIGHT, set()) for _ in range(4)]
    held.clear()
    assert len(memory._waiting) == 2
    release()
    assert not memory._waiting


def test_the_system_may_have_what_waits_beyond_a_bound_and_it_still_works(monkeypatch) -> None:
    monkeypatch.setattr(memory, "OWN_BYTES", WEIGHT.nbytes)
    held = [fresh_gradient(WEIGHT, {0}) for _ in range(3)]
    for grad in held:
        grad[0] = 2.0
    held.clear()
    del grad
    assert sorted(pages.is_lent for pages in memory._waiting) == [False, True, True]
    again = [fresh_gradient(WEIGHT, {1}) for _ in range(3)]
    assert not memory._waiting
    for grad in again:
        grad[1] = 5.0
        assert not grad[[0, 2, 3, 4, 5, 6, 7]].any()
        assert (grad[1] == 5.0).all()


def test_small_gradients_are_torchs_own() -> None:
    grad = fresh_gradient(torch.empty(4, 3, 3), {1})
    assert not grad[[0, 2, 3]].any()
    del grad
    assert not memory._waiting
