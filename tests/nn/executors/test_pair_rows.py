"""Rows are moved around products as autograd would, and no copy of all pairs is made in single precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.nn.executors.test_fast import make, plans
from turnout.core.errors import InputError
from turnout.nn.executors import pair_rows
from turnout.nn.executors.auto import make_executor
from turnout.nn.executors.pair_rows import PairRows
from turnout.nn.executors.sums import TokenSums, bags_work
from turnout.nn.plan import SparsePlan


class Largest(TorchDispatchMode):
    """Notes how many numbers of single precision the largest result of an operation holds."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        own = [one for one in tree_leaves(found) if isinstance(one, Tensor) and one.dtype == torch.float32]
        self.size = max(self.size, *(one.numel() for one in own), 0) if own else self.size
        return found


@pytest.mark.parametrize("setting", ["swiglu and biases", "plain and biases"])
@pytest.mark.parametrize("executor", ["grouped", "segments"])
def test_no_copy_of_all_pairs_is_made_in_single_precision(executor, setting) -> None:
    experts = make(setting, torch.bfloat16, width=64, inner=32)
    # Nothing of the experts is as large as the rows of all pairs.
    plan, x_TD = plans(1500)["spread"], torch.randn(1500, 64).bfloat16().requires_grad_()
    run = make_executor(executor).run
    run(x_TD, plan, experts).sum().backward()
    with Largest() as largest:
        run(x_TD, plan, experts).sum().backward()
    assert 0 < largest.size <= 512 * 1.5 * 64
    with Largest() as largest, torch.no_grad():
        run(x_TD, plan, experts)
    assert largest.size < plan.num_pairs * 32


def parts(plan: SparsePlan, *, has_bias: bool) -> list[Tensor]:
    out_ND = torch.randn(plan.num_pairs, 7, dtype=torch.float64, requires_grad=True)
    bias_ED = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    return [out_ND, plan.weights_N, *([bias_ED] if has_bias else [])]


@pytest.mark.parametrize("kind", ["spread", "all to one", "ragged", "idle"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_sums_of_tokens_and_their_gradients_are_those_of_autograd(kind, has_bias) -> None:
    for num_tokens in (0, 1, 37):
        plan = plans(num_tokens)[kind]
        plan = replace(plan, weights_N=plan.weights_N.detach().double().requires_grad_())
        out_ND, weights_N, *bias = leaves = parts(plan, has_bias=has_bias)
        biased_ND = out_ND + bias[0][plan.experts_N] if bias else out_ND
        zeros_TD = torch.zeros(num_tokens, 7, dtype=torch.float64)
        expected_TD = zeros_TD.index_add(0, plan.tokens_N, biased_ND * weights_N[:, None])
        found_TD = PairRows(plan).combined(out_ND, bias[0] if bias else None, torch.float64)
        torch.testing.assert_close(found_TD, expected_TD)
        dy_TD = torch.randn(num_tokens, 7, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(found_TD, leaves, dy_TD), torch.autograd.grad(expected_TD, leaves, dy_TD)
        )


@pytest.mark.parametrize("kind", ["spread", "all to one", "ragged", "idle"])
def test_gathered_and_biased_rows_have_the_gradients_of_autograd(kind) -> None:
    for num_tokens in (0, 1, 37):
        plan = plans(num_tokens)[kind]
        x_TD, bias_ED = (torch.randn(rows, 7).double().requires_grad_() for rows in (num_tokens, 6))
        rows = PairRows(plan)
        found_ND = rows.biased(rows.gathered(x_TD, torch.float64), bias_ED)
        expected_ND = x_TD[plan.tokens_N] + bias_ED[plan.experts_N]
        torch.testing.assert_close(found_ND, expected_ND)
        dy_ND = torch.randn(plan.num_pairs, 7, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(found_ND, [x_TD, bias_ED], dy_ND),
            torch.autograd.grad(expected_ND, [x_TD, bias_ED], dy_ND),
        )


def test_only_what_is_asked_for_has_a_gradient() -> None:
    plan = plans(37)["spread"]
    for frozen in ("out", "weights", "bias"):
        out_ND, weights_N, bias_ED = parts(
            replace(plan, weights_N=plan.weights_N.detach().double().requires_grad_()), has_bias=True
        )
        leaves = {"out": out_ND, "weights": weights_N, "bias": bias_ED}
        leaves[frozen].requires_grad_(False)
        PairRows(replace(plan, weights_N=weights_N)).combined(out_ND, bias_ED, torch.float64).sum().backward()
        assert {name for name, leaf in leaves.items() if leaf.grad is not None} == set(leaves) - {frozen}


def test_a_gradient_of_states_in_half_precision_is_rounded_once() -> None:
    experts_N, tokens_N = torch.arange(300) % 6, torch.zeros(300, dtype=torch.int64)
    plan = SparsePlan.from_pairs(tokens_N, experts_N, torch.ones(300), num_tokens=1, num_experts=6)
    x_TD = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    PairRows(plan).gathered(x_TD, torch.bfloat16).backward(torch.full((300, 1), 1.0, dtype=torch.bfloat16))
    assert x_TD.grad is not None
    # One by one in half precision they come to 256, where adding one more is lost.
    assert x_TD.grad.item() == 300


def test_a_second_derivative_is_refused() -> None:
    plan = plans(5)["spread"]
    x_TD = torch.randn(5, 7, requires_grad=True)
    rows = PairRows(plan)
    y_TD = rows.combined(rows.gathered(x_TD, torch.float32).square(), None, torch.float32)
    (dx_TD,) = torch.autograd.grad(y_TD.sum(), x_TD, create_graph=True)
    with pytest.raises(InputError, match="was differentiated"):
        dx_TD.square().sum().backward()


def test_sums_in_bags_are_those_of_additions() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert bags_work(torch.device("cpu"), dtype)
    tokens_N, rows_ND = torch.tensor([3, 0, 3, 3, 1]), torch.randn(5, 7)
    sums = TokenSums(tokens_N, 5)
    for weights_N in (None, torch.rand(5)):
        torch.testing.assert_close(sums.in_bags(rows_ND, weights_N), sums.added(rows_ND, weights_N))


def test_bags_that_add_up_wrongly_are_not_taken(monkeypatch) -> None:
    monkeypatch.setattr(TokenSums, "in_bags", lambda self, rows_ND, _=None: self.added(rows_ND))
    bags_work.forget()
    assert not bags_work(torch.device("cpu"), torch.float32)
    bags_work.forget()


def test_without_triton_rows_are_moved_by_torch(monkeypatch) -> None:
    plan, experts = plans(5)["spread"], make("swiglu", torch.float32, width=16, inner=8)
    monkeypatch.setattr(pair_rows, "KERNELS_ON", ("cpu",))
    monkeypatch.setattr(pair_rows, "FEW_PAIRS", 0)
    monkeypatch.setattr(pair_rows, "kernels_work", lambda *_: False)
    assert type(pair_rows.pair_rows(plan, torch.randn(5, 16), experts.stack())) is PairRows
