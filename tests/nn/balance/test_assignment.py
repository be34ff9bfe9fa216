from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.load import balance
from turnout.nn.balance.assignment import assign
from turnout.nn.balance.quantile import quantile_prices
from turnout.nn.balance.sinkhorn import sinkhorn


def best_by_trial(scores_TE: torch.Tensor) -> float:
    """The best total of all assignments with equal numbers, one by one."""
    num_tokens, num_experts = scores_TE.shape
    slots = list(range(num_experts)) * (num_tokens // num_experts)
    rows = torch.arange(num_tokens)
    return max(float(scores_TE[rows, list(order)].sum()) for order in set(itertools.permutations(slots)))


def test_the_auction_finds_what_trying_all_finds() -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        scores_TE = torch.randn(6, 3, dtype=torch.double)
        found = assign(scores_TE, tolerance=1e-6)
        total = float(scores_TE.gather(1, found.experts_T[:, None]).sum())
        assert total == pytest.approx(best_by_trial(scores_TE), abs=1e-4)
        assert found.gap < 1e-4


@pytest.mark.parametrize(("num_tokens", "num_experts"), [(256, 16), (120, 8), (64, 64), (5, 1)])
def test_loads_are_equal_and_the_certificate_holds(num_tokens, num_experts) -> None:
    scores_TE = torch.randn(num_tokens, num_experts) + torch.linspace(0, 3, num_experts)
    found = assign(scores_TE, tolerance=1e-4)
    load_E = torch.bincount(found.experts_T, minlength=num_experts)
    assert load_E.unique().numel() == 1
    spread = float(scores_TE.max() - scores_TE.min())
    assert -1e-9 <= found.gap <= num_tokens * 1e-4 * spread
    # The certificate is a bound for everybody: no trade of two tokens gains more.
    s_TE, e_T = scores_TE.double(), found.experts_T
    own_T = s_TE.gather(1, e_T[:, None])[:, 0]
    gain_TT = s_TE[:, e_T] + s_TE[:, e_T].T - own_T[:, None] - own_T[None, :]
    assert float(gain_TT.max()) <= found.gap + 1e-9


@pytest.mark.timeout(20)
@pytest.mark.parametrize("value", [0.0, 10.0, -1e6, 1e30, -1e308])
def test_equal_scores_end_in_equal_loads(value) -> None:
    found = assign(torch.full((64, 8), value, dtype=torch.double))
    assert torch.bincount(found.experts_T, minlength=8).tolist() == [8] * 8
    assert found.gap == 0
    assert not assign(torch.full((9, 4), value, dtype=torch.double), tolerance=1e-30).gap


@pytest.mark.parametrize(
    ("factor", "shift"), [(1e-30, 0.0), (1e-300, 0.0), (1.0, 1e9), (1e-6, -1e6), (1e307, 0.0)]
)
def test_neither_scale_nor_shift_changes_who_gets_what(factor, shift) -> None:
    torch.manual_seed(0)
    scores_TE = torch.randn(64, 8, dtype=torch.double)
    moved_TE = scores_TE * factor + shift
    plain, found = assign(moved_TE - shift), assign(moved_TE)
    assert torch.equal(found.experts_T, plain.experts_T)
    assert torch.allclose(found.price_E / factor, plain.price_E / factor)
    assert 0 <= found.gap <= 64 * 1e-4 * float(moved_TE.max() / 2 - moved_TE.min() / 2) * 2
    columns = torch.arange(8).repeat_interleave(8)
    rows, slots = linear_sum_assignment(-(moved_TE - shift)[:, columns] / factor)
    best = float(((moved_TE - shift) / factor)[rows, columns[slots]].sum())
    total = float(((moved_TE - shift) / factor).gather(1, found.experts_T[:, None]).sum())
    assert total <= best + 1e-9
    assert best - total <= found.gap / factor + 1e-9


@pytest.mark.parametrize(("num_tokens", "num_experts"), [(9, 4), (3, 5), (17, 16), (40, 16), (129, 64)])
def test_what_does_not_divide_leaves_loads_one_apart_and_the_best_total(num_tokens, num_experts) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        scores_TE = torch.randn(num_tokens, num_experts, dtype=torch.double)
        scores_TE += torch.linspace(0, 4, num_experts)
        found = assign(scores_TE, tolerance=1e-5)
        floor, more = divmod(num_tokens, num_experts)
        load_E = torch.bincount(found.experts_T, minlength=num_experts)
        assert sorted(load_E.tolist()) == [floor] * (num_experts - more) + [floor + 1] * more
        # Its twin: a column a place, and rows that may take the last place of each expert alone.
        columns = torch.arange(num_experts).repeat_interleave(floor + 1)
        spare_ZP = torch.full((num_experts - more, len(columns)), -1e6, dtype=torch.double)
        spare_ZP[:, floor :: floor + 1] = 0
        table = torch.cat([scores_TE[:, columns], spare_ZP]).numpy()
        rows, places = linear_sum_assignment(table, maximize=True)
        best = table[rows, places].sum()
        total = float(scores_TE.gather(1, found.experts_T[:, None]).sum())
        assert total == pytest.approx(best, abs=1e-5 * num_tokens * 12)
        assert best - total <= found.gap + 1e-9
        assert found.gap < 1e-5 * 3 * (num_tokens + num_experts) * 12


def test_a_constant_for_an_expert_changes_its_price_and_nobody_s_place() -> None:
    scores_TE = torch.randn(32, 4, dtype=torch.double)
    plain = assign(scores_TE, tolerance=1e-7)
    moved = assign(scores_TE + torch.tensor([0.0, 5.0, 0.0, -2.0]), tolerance=1e-7)
    assert torch.equal(plain.experts_T, moved.experts_T)


def test_sinkhorn_meets_both_sums_and_has_the_form_of_its_optimum() -> None:
    logits_TE = torch.randn(48, 6, dtype=torch.double) * 2
    plan_TE = sinkhorn(logits_TE, tolerance=1e-9, max_iterations=5000)
    assert plan_TE.sum(1).tolist() == pytest.approx([1.0] * 48)
    assert plan_TE.sum(0).tolist() == pytest.approx([8.0] * 6, rel=1e-6)
    # log(plan) - logits is a number per row plus one per column: all 2 x 2 differences vanish.
    rest_TE = plan_TE.log() - logits_TE
    twice = rest_TE - rest_TE[:1] - rest_TE[:, :1] + rest_TE[0, 0]
    assert float(twice.abs().max()) < 1e-9


def test_the_logarithmic_domain_agrees_with_the_plain_iteration_and_survives_large_logits() -> None:
    logits_TE = torch.randn(32, 4, dtype=torch.double)
    cost_TE, d1_E = logits_TE.exp(), torch.ones(4, dtype=torch.double)
    d0_T = torch.ones(32, dtype=torch.double)
    for _ in range(2000):
        d0_T = (1 / 32) / (cost_TE @ d1_E)
        d1_E = (1 / 4) / (cost_TE.T @ d0_T)
    plain_TE = 32 * d1_E * cost_TE * d0_T[:, None]
    found_TE = sinkhorn(logits_TE, tolerance=1e-10, max_iterations=5000)
    assert torch.allclose(found_TE, plain_TE, atol=1e-8)
    large_TE = sinkhorn(1e3 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    assert bool(large_TE.isfinite().all())
    assert large_TE.sum(1).tolist() == pytest.approx([1.0] * 32, rel=1e-5)
    assert large_TE.sum(0).tolist() == pytest.approx([8.0] * 4, rel=1e-3)


@pytest.mark.parametrize("size", [30.0, 1e2, 1e3, 1e4])
def test_sinkhorn_meets_loads_however_much_logits_differ(size: float) -> None:
    logits_TE = size * torch.randn(64, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    plan_TE = sinkhorn(logits_TE)
    assert plan_TE.sum(0).tolist() == pytest.approx([8.0] * 8, rel=2e-4)
    # It is the optimum: of the same form as that of the slow iteration.
    if size < 1e3:
        slow_TE = sinkhorn(logits_TE, tolerance=1e-8, max_iterations=50_000)
        assert float((sinkhorn(logits_TE, tolerance=1e-8) - slow_TE).abs().max()) < 1e-6


def test_the_gradient_of_prices_is_that_of_the_iterations() -> None:
    logits_TE = 12 * torch.randn(16, 4, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    weight_TE = torch.randn(16, 4, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    gradients = []
    for most in (1, 20_000):
        z_TE = logits_TE.clone().requires_grad_()
        (sinkhorn(z_TE, tolerance=1e-10, max_iterations=most) * weight_TE).sum().backward()
        assert z_TE.grad is not None
        gradients.append(z_TE.grad)
    assert float(gradients[0].abs().max()) > 1e-3
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_sinkhorn_says_what_it_cannot_meet_and_refuses_what_is_no_number() -> None:
    closed_TE = torch.zeros(8, 2)
    closed_TE[:6, 0] = -torch.inf
    # Two tokens alone may go to expert 0, which is to have four.
    with pytest.warns(RuntimeWarning, match=r"sinkhorn: loads; allowed: within 0.0001; got: 'off by 0\.5"):
        sinkhorn(closed_TE)
    for wrong in (torch.nan, torch.inf):
        logits_TE = torch.zeros(4, 2)
        logits_TE[3, 1] = wrong
        with pytest.raises(InputError, match="sinkhorn: logits_TE; allowed: numbers, or -inf"):
            sinkhorn(logits_TE)
        assert bool(sinkhorn(logits_TE, mask_T=torch.tensor([True, True, True, False])).isfinite().all())


def test_a_cold_sinkhorn_scores_what_the_assignment_scores_and_a_warm_one_less() -> None:
    scores_TE = torch.randn(40, 5, dtype=torch.double)
    best = scores_TE.gather(1, assign(scores_TE, tolerance=1e-7).experts_T[:, None]).sum()
    totals = [
        float((sinkhorn(scores_TE, temperature=t, tolerance=1e-6, max_iterations=20_000) * scores_TE).sum())
        for t in (1.0, 0.1, 0.02)
    ]
    assert totals == sorted(totals)
    assert totals[-1] == pytest.approx(float(best), rel=0.01)
    assert totals[0] < 0.9 * float(best)


def test_sinkhorn_to_given_loads_with_masked_rows_and_gradients() -> None:
    logits_TE = torch.randn(12, 3, requires_grad=True)
    mask_T = torch.arange(12) < 9
    plan_TE = sinkhorn(logits_TE, load_E=torch.tensor([6.0, 2.0, 1.0]), mask_T=mask_T, max_iterations=500)
    assert plan_TE.sum(0).tolist() == pytest.approx([6.0, 2.0, 1.0], rel=1e-3)
    assert not bool(plan_TE[9:].any())
    plan_TE[:, 0].square().sum().backward()
    assert logits_TE.grad is not None
    assert bool(logits_TE.grad[:9].any())
    assert not bool(logits_TE.grad[9:].any())
    assert sinkhorn(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("k", [1, 2])
def test_quantile_prices_settle_at_exact_loads_on_one_batch(k) -> None:
    scores_TE = torch.randn(256, 8) + torch.linspace(0, 2, 8)
    price_E = torch.zeros(8)
    start = balance(torch.bincount(scores_TE.topk(k)[1].flatten(), minlength=8)).max_vio
    for _ in range(60):
        price_E = quantile_prices(scores_TE, price_E, k)
    load_E = torch.bincount((scores_TE - price_E).topk(k)[1].flatten(), minlength=8)
    assert start > 1.0
    assert balance(load_E).max_vio < 0.1
    assert float(price_E.mean()) == pytest.approx(0.0, abs=1e-6)


def test_an_overloaded_expert_is_left_exactly_its_share_if_the_others_stay() -> None:
    scores_TE, price_E = torch.randn(64, 4), torch.randn(4) * 0.5
    load_E = torch.bincount((scores_TE - price_E).topk(2)[1].flatten(), minlength=4)
    alpha_T = (scores_TE - price_E).topk(3)[0][:, 2]
    found_E = quantile_prices(scores_TE, price_E, 2)
    # Undo the centring by the mean of what was found before it.
    raw_E = (scores_TE - alpha_T[:, None]).topk(33, dim=0)[0][32]
    assert torch.allclose(found_E, raw_E - raw_E.mean(), atol=1e-6)
    left_E = ((scores_TE - alpha_T[:, None]) > raw_E).sum(0)
    assert bool((load_E > 32).any())
    assert left_E[load_E > 32].tolist() == [32] * int((load_E > 32).sum())
    # Who has too little keeps its price or lowers it.
    assert bool((raw_E[load_E < 32] <= price_E[load_E < 32] + 1e-6).all())


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="finite numbers"):
        assign(torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(InputError, match="tolerance"):
        assign(torch.rand(2, 2), tolerance=0.0)
    with pytest.raises(InputError, match="temperature"):
        sinkhorn(torch.rand(2, 2), temperature=0.0)
    with pytest.raises(InputError, match="summing to T = 4"):
        sinkhorn(torch.rand(4, 2), load_E=torch.tensor([1.0, 1.0]))
    with pytest.raises(ShapeError, match=r"\(E,\) = \(2,\)"):
        sinkhorn(torch.rand(4, 2), load_E=torch.ones(3))
    with pytest.raises(InputError, match="E divides T k"):
        quantile_prices(torch.rand(5, 4), torch.zeros(4), 1)
