"""Memory of gradients is zero where nobody writes, and waits for the next step only once nobody reads it."""

from __future__ import annotations

import mmap

import pytest
import torch

from turnout.nn.executors import memory
from turnout.nn.executors.memory import fresh_gradient, release

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
