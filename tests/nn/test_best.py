"""The kernel finds the places that torch finds; `make test-triton` runs it."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from turnout.nn.best import best_by_kernel, best_of

HAS_TRITON = importlib.util.find_spec("triton") is not None
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(
    not HAS_TRITON or not (IS_INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton, and a GPU or its interpreter",
)
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")


def test_a_processor_asks_torch() -> None:
    score_TE = torch.randn(300, 8)
    assert torch.equal(best_of(score_TE, 3), score_TE.topk(3, dim=-1)[1])


@needs_triton
@pytest.mark.parametrize(("num_experts", "k"), [(64, 8), (128, 8), (7, 3), (1, 1), (100, 16)])
def test_the_kernel_finds_what_torch_finds(num_experts, k) -> None:
    for num_tokens in (0, 1, 37):
        score_TE = torch.randn(num_tokens, num_experts, device=DEVICE)
        assert torch.equal(best_by_kernel(score_TE, k), score_TE.topk(k, dim=-1)[1])


@needs_triton
def test_ties_go_to_the_first_and_what_is_no_number_has_its_place() -> None:
    score_TE = torch.zeros(3, 6, device=DEVICE)
    score_TE[1, 4] = torch.nan
    score_TE[2] = -torch.inf
    score_TE[2, 5] = -3.0
    assert best_by_kernel(score_TE, 3).tolist() == [[0, 1, 2], [4, 0, 1], [5, 0, 1]]


@needs_triton
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_compiled_code_calls_the_kernel_as_it_is() -> None:
    torch.compiler.reset()
    function = lambda score_TE: best_by_kernel(score_TE + 1, 3)  # noqa: E731
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    score_TE = torch.randn(37, 9, device=DEVICE)
    assert torch.equal(compiled(score_TE), (score_TE + 1).topk(3, dim=-1)[1])
    torch.compiler.reset()
