"""Triton's kernels move rows around products as torch does; `make test-triton` runs them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.nn.executors.needs_triton import need_triton
from tests.nn.executors.test_fast import SETTINGS, make, plans, there

need_triton()

from tests.nn.executors.test_triton import DEVICE, require_same, results, small_tiles, spied  # noqa: E402
from turnout.core.errors import InputError  # noqa: E402
from turnout.nn.executors import pair_rows, triton_passes  # noqa: E402
from turnout.nn.executors.grouped import GroupedExecutor  # noqa: E402
from turnout.nn.executors.loop import LoopExecutor  # noqa: E402
from turnout.nn.executors.pair_rows import PairRows  # noqa: E402
from turnout.nn.executors.triton_executor import TritonExecutor  # noqa: E402
from turnout.nn.executors.triton_pair_rows import KernelRows  # noqa: E402
from turnout.nn.plan import SparsePlan  # noqa: E402

__all__ = ["small_tiles"]


@pytest.fixture
def by_kernels(monkeypatch) -> None:
    """Let kernels move the rows of any number of pairs, and not torch."""
    monkeypatch.setattr(pair_rows, "KERNELS_ON", (DEVICE.type,))
    monkeypatch.setattr(pair_rows, "FEW_PAIRS", -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.usefixtures("by_kernels")
def test_rows_around_the_grouped_product_are_moved_by_kernels(dtype, setting) -> None:
    experts = make(setting, dtype, width=40, inner=24).to(DEVICE)
    for num_tokens in (0, 1, 21):
        x_TD = torch.randn(num_tokens, 40).to(dtype)
        for plan in plans(num_tokens).values():
            rows = GroupedExecutor().rows_of(there(plan, DEVICE), x_TD.to(DEVICE), experts.stack())
            assert isinstance(rows, KernelRows)
            expected = results(LoopExecutor(), x_TD, plan, experts)
            require_same(results(GroupedExecutor(), x_TD, plan, experts), expected, dtype)


@pytest.mark.usefixtures("by_kernels")
def test_states_may_be_of_another_precision_than_experts() -> None:
    experts, plan = (
        make("plain and biases", torch.bfloat16, width=40, inner=24).to(DEVICE),
        plans(21)["ragged"],
    )
    x_TD = torch.randn(21, 40)
    expected = results(LoopExecutor(), x_TD, plan, experts)
    require_same(results(GroupedExecutor(), x_TD, plan, experts), expected, torch.bfloat16)


def expert_choice() -> SparsePlan:
    """Return a plan of experts that choose: a token has none, or up to all of them, and some are masked."""
    score_TE = torch.rand(53, 6, generator=torch.Generator().manual_seed(3))
    is_pair_TE = torch.zeros(53, 6, dtype=torch.bool)
    is_pair_TE[score_TE.topk(9, dim=0).indices, torch.arange(6)] = True
    is_pair_TE[7] = True
    mask_T = torch.arange(53) % 5 > 0
    plan = SparsePlan.from_dense(score_TE, is_pair_TE=is_pair_TE, mask_T=mask_T)
    counts_T = torch.bincount(plan.tokens_N, minlength=53)
    assert int(counts_T.min()) == 0
    assert int(counts_T.max()) == 6
    return replace(plan, weights_N=plan.weights_N.requires_grad_())


@pytest.mark.parametrize("executor", [GroupedExecutor, TritonExecutor])
@pytest.mark.usefixtures("by_kernels")
def test_a_token_may_have_no_pair_or_one_of_each_expert(executor) -> None:
    experts, plan = make("plain and biases", torch.float32, width=40, inner=24).to(DEVICE), expert_choice()
    x_TD = torch.randn(53, 40)
    x_TD[0] = torch.nan
    expected = results(LoopExecutor(), x_TD, plan, experts)
    require_same(results(executor(), x_TD, plan, experts), expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["spread", "all to one", "ragged", "idle", "chosen"])
def test_kernels_move_rows_as_torch_does(dtype, kind) -> None:
    rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (2e-2, 5e-2)
    for num_tokens in (0, 150 if kind == "all to one" else 37):
        plan = there(expert_choice() if kind == "chosen" else plans(num_tokens)[kind], DEVICE)
        size = (plan.num_tokens, 70)
        x_TD, dy_TD = (torch.randn(size).to(DEVICE, dtype) for _ in range(2))
        bias_EJ = torch.randn(70, 6).T.to(DEVICE, dtype)
        torch_rows, kernel_rows = PairRows(plan), KernelRows(plan)
        out_ND = torch_rows.gather(x_TD)
        for given in (None, bias_EJ):
            parts, found = (out_ND, plan.weights_N.detach(), given), []
            for rows in (torch_rows, kernel_rows):
                spread = rows.spread(dy_TD[:1].expand(size), *parts, (True, True))
                found.append([rows.gather(x_TD), rows.combine(*parts, dtype), *spread])
                found[-1] += [
                    rows.add_up(out_ND, dtype),
                    rows.add_bias(out_ND, bias_EJ),
                    rows.by_expert(out_ND),
                ]
            for one, other in zip(*found, strict=True):
                torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
            assert kernel_rows.spread(dy_TD, *parts, (False, True))[0] is None
            assert kernel_rows.spread(dy_TD, *parts, (True, False))[1] is None


@pytest.mark.usefixtures("by_kernels")
def test_a_second_derivative_by_kernels_is_refused() -> None:
    experts, plan = make("plain and biases", torch.float32, width=16, inner=8).to(DEVICE), plans(5)["spread"]
    x_TD = torch.randn(5, 16).to(DEVICE).requires_grad_()
    y_TD = GroupedExecutor().run(x_TD, there(plan, DEVICE), experts)
    (dx_TD,) = torch.autograd.grad(y_TD.sum(), x_TD, create_graph=True)
    with pytest.raises(InputError, match=r"was differentiated.*make_executor"):
        dx_TD.square().sum().backward()


@pytest.mark.usefixtures("by_kernels")
def test_kernels_that_move_rows_wrongly_are_not_taken(monkeypatch) -> None:
    pair_rows.kernels_work.forget()
    assert pair_rows.kernels_work(DEVICE, torch.bfloat16)
    for name in ("gather", "combine", "spread", "add_bias", "by_expert"):
        real = getattr(triton_passes, name)

        def wrong(*args, real=real, **kwargs):
            found = real(*args, **kwargs)
            return (found[0], found[1] + 1) if isinstance(found, tuple) else found + 1

        with monkeypatch.context() as patched:
            patched.setattr(triton_passes, name, wrong)
            pair_rows.kernels_work.forget()
            assert not pair_rows.kernels_work(DEVICE, torch.bfloat16)
    pair_rows.kernels_work.forget()


@pytest.mark.usefixtures("by_kernels")
def test_double_precision_goes_by_torch() -> None:
    experts, plan = (
        make("swiglu", torch.float64, width=16, inner=8).to(DEVICE),
        there(plans(5)["spread"], DEVICE),
    )
    rows = GroupedExecutor().rows_of(plan, torch.randn(5, 16).double().to(DEVICE), experts.stack())
    assert type(rows) is PairRows


@pytest.mark.usefixtures("by_kernels")
def test_rows_are_moved_in_few_launches(monkeypatch) -> None:
    assert pair_rows.kernels_work(DEVICE, torch.float32)
    launches, plan = spied(monkeypatch), plans(21)["spread"]
    forward = {}
    experts = {
        setting: make(setting, torch.float32, width=16, inner=8).to(DEVICE)
        for setting in ("swiglu", "plain and biases")
    }
    for setting, module in experts.items():
        with torch.no_grad():
            GroupedExecutor().run(torch.randn(21, 16).to(DEVICE), there(plan, DEVICE), module)
        forward[setting] = [name.split(".")[1] for name, _, _ in launches]
        launches.clear()
    assert forward["swiglu"] == ["gather_kernel", "_layout_kernel", "combine_kernel"]
    # The biases of down are added within the sums.
    assert forward["plain and biases"] == ["gather_kernel", "bias_kernel", "_layout_kernel", "combine_kernel"]
    results(GroupedExecutor(), torch.randn(21, 16), plan, experts["plain and biases"])
    backward = [name.split(".")[1] for name, _, _ in launches][4:]
    assert backward == ["spread_kernel", "expert_sum_kernel", "expert_sum_kernel", "combine_kernel"]
