from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.core.prices import dual_sign_step, dual_step
from turnout.nn.analysis.load import balance
from turnout.nn.balance.assignment import assign
from turnout.nn.balance.bias import LossFreeBias, Schedule
from turnout.nn.balance.dual import dual_point, safe_step

SKEW_E = torch.linspace(0.0, 0.5, 8, dtype=torch.double)


def skewed(num_tokens: int = 512) -> torch.Tensor:
    return torch.rand(num_tokens, 8, dtype=torch.double) + SKEW_E


def load_of(scores_TE: torch.Tensor, bias_E: torch.Tensor, k: int = 1) -> torch.Tensor:
    return torch.bincount((scores_TE + bias_E).topk(k)[1].flatten(), minlength=scores_TE.shape[1])


@pytest.mark.parametrize("rule", ["violation", "sign"])
def test_the_bias_is_the_price_of_a_request_budget_with_its_sign_turned(rule) -> None:
    """One input, two levels: the same numbers to the last bit (docs/prices.md)."""
    move = dual_step if rule == "violation" else dual_sign_step
    step = 2.0**-12 if rule == "violation" else 2.0**-8
    balancer = LossFreeBias(num_experts=8, step=step, rule=rule, is_centred=False)
    bias_E, price_E = torch.zeros(8, dtype=torch.double), np.zeros(8)
    for _ in range(200):
        scores_TE = skewed()
        balancer.observe(load_of(scores_TE, bias_E))
        balancer.update(bias_E)
        # The other level: a request takes the greatest score minus price, usage is charged to its target.
        choice_T = (scores_TE.numpy() - price_E).argmax(axis=1)
        usage_E = np.bincount(choice_T, minlength=8)
        price_E = move(price_E, usage=usage_E, target=usage_E.mean(), step=step, low=-math.inf)
        assert (price_E == -bias_E.numpy()).all()


def test_an_overloaded_expert_falls_by_exactly_u_before_centring() -> None:
    bias_E, load_E = torch.zeros(4), torch.tensor([10, 2, 4, 4])
    balancer = LossFreeBias(num_experts=4, is_centred=False)
    balancer.observe(load_E)
    balancer.update(bias_E)
    assert bias_E.tolist() == pytest.approx([-1e-3, 1e-3, 1e-3, 1e-3])
    centred_E = torch.zeros(4)
    balancer = LossFreeBias(num_experts=4)
    balancer.observe(load_E)
    balancer.update(centred_E)
    assert float(centred_E.sum()) == pytest.approx(0.0, abs=1e-9)
    assert torch.allclose(bias_E - centred_E, (bias_E - centred_E).mean())


def test_micro_batches_count_as_one_batch_and_nothing_as_nothing() -> None:
    one_E, two_E = torch.zeros(4), torch.zeros(4)
    load_E = torch.tensor([7.0, 1.0, 2.0, 2.0])
    whole, parts = (LossFreeBias(num_experts=4, rule="relative") for _ in range(2))
    whole.observe(load_E)
    parts.observe(torch.tensor([7.0, 0.0, 0.0, 1.0]))
    parts.observe(torch.tensor([0.0, 1.0, 2.0, 1.0]))
    whole.update(one_E)
    parts.update(two_E)
    assert torch.equal(one_E, two_E)
    parts.update(two_E)
    assert torch.equal(one_E, two_E)
    assert int(parts.num_updates) == 1


@pytest.mark.parametrize("k", [1, 2])
def test_a_skewed_stream_ends_balanced(k) -> None:
    bias_E, balancer = torch.zeros(8), LossFreeBias(num_experts=8, step=0.01)
    before = balance(load_of(skewed(4096), bias_E.double(), k)).max_vio
    for _ in range(300):
        balancer.observe(load_of(skewed(), bias_E.double(), k))
        balancer.update(bias_E)
    after = balance(load_of(skewed(4096), bias_E.double(), k)).max_vio
    assert before > 0.7
    assert after < 0.25


def test_a_quota_is_met_as_equal_shares_are() -> None:
    quota_E = torch.tensor([0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    bias_E = torch.zeros(8)
    balancer = LossFreeBias(
        num_experts=8, step=0.5, rule="relative", schedule="inverse_sqrt", quota_E=quota_E
    )
    for _ in range(400):
        balancer.observe(load_of(skewed(), bias_E.double()))
        balancer.update(bias_E)
    share_E = load_of(skewed(8192), bias_E.double()) / 8192
    assert share_E.tolist() == pytest.approx(quota_E.tolist(), abs=0.03)


def test_tokens_move_from_the_more_loaded_to_the_less_loaded_alone() -> None:
    """S190's preference rule, for the plain dual step and one expert a token."""
    scores_TE, bias_E = skewed(), torch.zeros(8, dtype=torch.double)
    balancer, moved = LossFreeBias(num_experts=8, step=1e-4, rule="violation"), 0
    for _ in range(50):
        before_T, load_E = (scores_TE + bias_E).argmax(-1), load_of(scores_TE, bias_E)
        balancer.observe(load_E)
        balancer.update(bias_E)
        after_T = (scores_TE + bias_E).argmax(-1)
        moves = before_T != after_T
        moved += int(moves.sum())
        assert bool((load_E[after_T[moves]] < load_E[before_T[moves]]).all())
    assert moved > 50


def test_every_bias_bounds_the_best_balanced_score_and_the_optimum_meets_it() -> None:
    scores_TE = skewed(64)
    best = assign(scores_TE, tolerance=1e-7)
    score = float(scores_TE.gather(1, best.experts_T[:, None]).mean())
    for _ in range(20):
        assert dual_point(scores_TE, torch.randn(8, dtype=torch.double), 1).value >= score - 1e-9
    assert dual_point(scores_TE, -best.price_E, 1).value == pytest.approx(score, abs=1e-6)


def test_the_violation_is_a_subgradient_of_the_dual_value() -> None:
    scores_TE, bias_E = skewed(32), torch.randn(8, dtype=torch.double) * 0.3
    here = dual_point(scores_TE, bias_E, 2)
    for _ in range(50):
        other_E = bias_E + torch.randn(8, dtype=torch.double)
        line = here.value + float(here.violation_E @ (other_E - bias_E))
        assert dual_point(scores_TE, other_E, 2).value >= line - 1e-12


def test_a_safe_step_always_comes_nearer_and_a_long_one_does_not() -> None:
    scores_TE = skewed(256)
    best = assign(scores_TE, tolerance=1e-7)
    optimum_E = -(best.price_E - best.price_E.mean())
    lower = float(scores_TE.gather(1, best.experts_T[:, None]).mean())
    bias_E, distance = torch.zeros(8, dtype=torch.double), float(optimum_E.norm())
    for _ in range(100):
        point = dual_point(scores_TE, bias_E, 1)
        step = safe_step(point, lower)
        if point.value - lower < 1e-6:
            break
        too_long = bias_E - 30 * step * point.violation_E
        bias_E = bias_E - step * point.violation_E
        now = float((bias_E - optimum_E).norm())
        assert now <= distance + 1e-9
        assert float((too_long - optimum_E).norm()) > now
        distance = now
    assert dual_point(scores_TE, bias_E, 1).value - lower < 0.01


def test_steps_of_one_over_n_have_logarithmic_regret_and_constant_ones_have_not() -> None:
    """S190: the dual value of continuous scores is strongly convex near its optimum."""
    held_TE, regret = skewed(2048), {}
    cases: tuple[tuple[Schedule, float], ...] = (("inverse", 1.0), ("constant", 0.3))
    for schedule, step in cases:
        balancer = LossFreeBias(num_experts=8, step=step, rule="relative", schedule=schedule)
        bias_E, total, marks = torch.zeros(8, dtype=torch.double), 0.0, []
        for n in range(1, 1025):
            total += dual_point(held_TE, bias_E, 1).value
            balancer.observe(load_of(held_TE[torch.randint(2048, (128,))], bias_E))
            balancer.update(bias_E)
            if n in (128, 256, 512, 1024):
                marks.append((n, total))
        regret[schedule] = marks
    floor = _optimum(held_TE)
    for schedule, marks in regret.items():
        lost = [total - n * floor for n, total in marks]
        growth = [after - before for before, after in itertools.pairwise(lost)]
        # Each stretch is twice as long as the one before: equal growth is a logarithm, twice is a line.
        if schedule == "inverse":
            assert growth[2] < 1.5 * growth[1] + 1e-3
        else:
            assert growth[2] > 1.7 * growth[1]


def _optimum(scores_TE: torch.Tensor) -> float:
    best = assign(scores_TE, tolerance=1e-5)
    return float(scores_TE.gather(1, best.experts_T[:, None]).mean())


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="step"):
        LossFreeBias(num_experts=4, step=0.0)
    with pytest.raises(InputError, match="sign, violation, relative"):
        LossFreeBias(num_experts=4, rule="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="inverse_sqrt"):
        LossFreeBias(num_experts=4, schedule="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shares that sum to 1"):
        LossFreeBias(num_experts=2, quota_E=torch.tensor([0.5, 0.6]))
    with pytest.raises(ShapeError, match=r"\(E,\) = \(4,\)"):
        LossFreeBias(num_experts=4).observe(torch.ones(5))
    balancer = LossFreeBias(num_experts=4)
    balancer.observe(torch.ones(4))
    with pytest.raises(InputError, match="float32"):
        balancer.update(torch.zeros(4, dtype=torch.bfloat16))
    with pytest.raises(ShapeError, match="k <= E"):
        dual_point(torch.rand(3, 4), torch.zeros(4), 5)


def test_the_dual_value_falls_in_each_step_by_what_no_violation_turned() -> None:
    """S190's monotone improvement, as it follows from convexity: g(b - u v) <= g(b) - u v' v.

    v and v' are the violations before and after. So the value falls in every step in which the loads do not
    turn over, all of the way with a short step; one that is too long does not improve monotonically.
    """
    scores_TE = skewed(1024)
    floor = _optimum(scores_TE)
    turned = {}
    for step in (0.02, 3.0):
        bias_E = torch.zeros(8, dtype=torch.double)
        balancer = LossFreeBias(num_experts=8, step=step / 1024, rule="violation")
        points = [dual_point(scores_TE, bias_E, 1)]
        for _ in range(150):
            balancer.observe(load_of(scores_TE, bias_E))
            balancer.update(bias_E)
            points.append(dual_point(scores_TE, bias_E, 1))
        turned[step] = 0
        for here, after in itertools.pairwise(points):
            agreement = float(here.violation_E @ after.violation_E)
            assert after.value <= here.value - step * agreement + 1e-12
            # Choosing anew for the new bias is worth no less than staying: L(x', b') >= L(x, b').
            stayed = here.value - step * float(here.violation_E.square().sum())
            assert after.value >= stayed - 1e-12
            turned[step] += after.value > here.value
        if step < 1:
            assert turned[step] == 0
            assert points[-1].value - floor < 0.05 * (points[0].value - floor)
    assert turned[3.0] > 20


@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_loads_over_time_are_as_even_as_the_bound_says(step: float) -> None:
    """S190's approximate balance, as the update has it: mean violation = -b / (u N), and b is bounded.

    Two biases that differ by more than scores do (R) leave one expert without tokens, so that no difference
    grows beyond R + u: after N steps each expert's mean share is within (R + u) / (u N) of 1 / E.
    """
    scores_TE = skewed(512)
    reach = float((scores_TE.amax(dim=1) - scores_TE.amin(dim=1)).max())
    balancer = LossFreeBias(num_experts=8, step=step / 512, rule="violation")
    bias_E, total_E, num_steps = torch.zeros(8, dtype=torch.double), torch.zeros(8, dtype=torch.double), 400
    for n in range(1, num_steps + 1):
        load_E = load_of(scores_TE, bias_E)
        total_E += load_E / 512 - 1 / 8
        balancer.observe(load_E)
        balancer.update(bias_E)
        assert float(bias_E.max() - bias_E.min()) <= reach + step
        assert float((total_E / n).abs().max()) <= (reach + step) / (step * n) + 1e-9
    assert torch.allclose(total_E / num_steps, -bias_E / (step * num_steps), atol=1e-9)
    # The bound bites: without a bias it does not hold.
    bare_E = load_of(scores_TE, torch.zeros(8)) / 512 - 1 / 8
    assert step < 0.1 or float(bare_E.abs().max()) > (reach + step) / (step * num_steps)
