from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize  # type: ignore[import-untyped]

from turnout.nn.balance.sparse_transport import semi_dual, sparse_simplex, sparse_transport


def nearest_by_trial(z: torch.Tensor, room: int, total: float) -> torch.Tensor:
    """The nearest point of all sets of at most `room` places, one by one."""
    best, least = torch.zeros_like(z), torch.inf
    for size in range(1, room + 1):
        for places in itertools.combinations(range(len(z)), size):
            point, at = torch.zeros_like(z), list(places)
            point[at] = z[at] - (z[at].sum() - total) / size
            away = float((point - z).square().sum())
            if bool((point >= 0).all()) and away < least:
                best, least = point, away
    return best


@pytest.mark.parametrize("room", [1, 2, 3, 6])
@pytest.mark.parametrize("total", [0.3, 1.0, 4.0])
def test_the_projection_finds_what_trying_all_finds(room: int, total: float) -> None:
    z_BSE = torch.randn(5, 6, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    found = sparse_simplex(z_BSE, torch.full((5,), float(room)), torch.full((5,), total))
    for item, expert in itertools.product(range(5), range(2)):
        expected = nearest_by_trial(z_BSE[item, :, expert], room, total)
        assert torch.allclose(found[item, :, expert], expected, atol=1e-10)


def test_of_equal_numbers_the_earlier_stay_and_what_is_closed_has_no_part() -> None:
    z_BSE = torch.tensor([[[0.0], [-torch.inf], [0.0], [0.0]]])
    found = sparse_simplex(z_BSE, torch.tensor([2.0]), torch.tensor([1.0]))
    assert found.flatten().tolist() == [0.5, 0.0, 0.5, 0.0]
    assert not sparse_simplex(z_BSE, torch.tensor([0.0]), torch.tensor([1.0])).any()


def value(alpha_BS: torch.Tensor, scores_BSE: torch.Tensor, room: int, gamma: float) -> torch.Tensor:
    room_B, size_B = (torch.full((len(alpha_BS),), float(n)) for n in (room, alpha_BS.shape[1]))
    return semi_dual(alpha_BS, scores_BSE, room_B, size_B, gamma)[0]


def test_the_sums_of_rows_are_the_gradient_of_the_dual_value() -> None:
    torch.manual_seed(0)
    alpha_BS, scores_BSE = torch.randn(3, 8, dtype=torch.double), torch.randn(3, 8, 4, dtype=torch.double)
    alpha_BS.requires_grad_()
    (slope_BS,) = torch.autograd.grad(value(alpha_BS, scores_BSE, 3, 0.7).sum(), alpha_BS)
    sizes = torch.full((3,), 3.0), torch.full((3,), 8.0)
    plan_BSE = semi_dual(alpha_BS.detach(), scores_BSE, *sizes, 0.7)[1]
    assert torch.allclose(slope_BS, plan_BSE.sum(2) - 1)
    step_BS = 1e-5 * torch.randn(3, 8, dtype=torch.double)
    there, here = (value(alpha_BS.detach() + sign * step_BS, scores_BSE, 3, 0.7) for sign in (1, -1))
    assert torch.allclose((there - here) / 2, (slope_BS * step_BS).sum(1), rtol=1e-3, atol=1e-9)


def test_with_any_number_of_tokens_and_a_small_gamma_it_is_the_best_assignment() -> None:
    scores_BSE = torch.rand(6, 8, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    _, plan_BSE = sparse_transport(scores_BSE, torch.full((6,), 8.0), gamma=0.002, steps=800)
    for plan_SE, scores_SE in zip(plan_BSE, scores_BSE, strict=True):
        rows, columns = linear_sum_assignment(scores_SE.repeat(1, 2).numpy(), maximize=True)
        best_SE = torch.zeros(8, 4, dtype=torch.double)
        best_SE[rows, columns % 4] = 1
        assert torch.allclose(plan_SE, best_SE, atol=1e-3)


def best_by_trial(scores_SE: np.ndarray, room: int, gamma: float) -> float:
    """The best objective of all sets of `room` tokens an expert, each by a solver of its own."""
    size, experts = scores_SE.shape
    best = -np.inf
    for sets in itertools.product(itertools.combinations(range(size), room), repeat=experts):
        is_in = np.array([[s in one for one in sets] for s in range(size)])
        if not is_in.any(axis=1).all():
            continue
        rules = [{"type": "eq", "fun": lambda p, s=s: p.reshape(size, -1)[s].sum() - 1} for s in range(size)]
        rules += [
            {"type": "eq", "fun": lambda p, e=e: p.reshape(size, -1)[:, e].sum() - size / experts}
            for e in range(experts - 1)
        ]
        found = minimize(
            lambda p: gamma / 2 * (p**2).sum() - (p * scores_SE.ravel()).sum(),
            is_in.ravel() / is_in.sum(),
            jac=lambda p: gamma * p - scores_SE.ravel(),
            bounds=[(0, 2 * float(one)) for one in is_in.ravel()],
            constraints=rules,
            method="SLSQP",
        )
        best = max(best, -found.fun) if found.success else best
    return best


def test_the_value_bounds_the_best_of_all_sets_and_the_plan_reaches_it_where_rows_are_met() -> None:
    met = 0
    for seed in range(4):
        scores_BSE = torch.rand(1, 4, 2, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
        bound_B, plan_BSE = sparse_transport(scores_BSE, torch.tensor([3.0]), gamma=0.5, steps=500)
        best = best_by_trial(scores_BSE[0].numpy(), 3, 0.5)
        assert float(bound_B) > best - 1e-6
        if float((plan_BSE.sum(2) - 1).abs().max()) < 1e-3:
            met += 1
            objective = float((plan_BSE * scores_BSE).sum() - 0.25 * plan_BSE.square().sum())
            assert objective == pytest.approx(best, abs=1e-3)
    assert met >= 2


SCORES_BSE = torch.randn(4, 64, 8, generator=torch.Generator().manual_seed(2)).softmax(-1)


# At 16 tokens tie for last places whatever the prices: there no plan of so few is as good as the bound.
@pytest.mark.parametrize(("room", "off"), [(8, 0.03), (16, 0.12), (64, 1e-3)])
def test_an_expert_has_no_more_tokens_than_room_and_both_sums_are_met(room: int, off: float) -> None:
    plan_BSE = SCORES_BSE
    for steps in (1, 20, 400):
        _, plan_BSE = sparse_transport(SCORES_BSE, torch.full((4,), float(room)), steps=steps)
        assert int((plan_BSE > 0).sum(1).max()) <= room
        assert torch.allclose(plan_BSE.sum(1), torch.full((4, 8), 8.0), rtol=1e-4)
    assert float((plan_BSE.sum(2) - 1).abs().mean()) < off


def test_the_value_never_ends_above_where_it_began_and_falls_with_steps() -> None:
    room_B = torch.full((4,), 8.0)
    start_B = value(torch.zeros(4, 64), SCORES_BSE, 8, 1.0)
    ends = [sparse_transport(SCORES_BSE, room_B, steps=steps)[0] for steps in (20, 400)]
    assert bool((start_B > ends[0]).all())
    assert bool((ends[0] > ends[1]).all())
    # Steps far too long come to nothing, and to no harm.
    assert torch.equal(sparse_transport(SCORES_BSE, room_B, steps=3, rate=1e4)[0], start_B)


def test_without_any_difference_and_without_tokens_there_is_nothing_to_weigh() -> None:
    _, plan_BSE = sparse_transport(torch.full((1, 4, 2), 0.5), torch.tensor([2.0]))
    assert plan_BSE[0].tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert sparse_transport(torch.zeros(2, 0, 3), torch.zeros(2))[1].shape == (2, 0, 3)


def test_padding_has_nothing_and_changes_nothing() -> None:
    mask_BS = torch.ones(4, 70, dtype=torch.bool)
    mask_BS[:, 64:], mask_BS[3] = False, False
    wide_BSE = torch.cat([SCORES_BSE, torch.full((4, 6, 8), 9.0)], dim=1)
    room_B = torch.tensor([8.0, 16.0, 64.0, 0.0])
    _, plan_BSE = sparse_transport(wide_BSE, room_B, mask_BS=mask_BS)
    assert torch.allclose(plan_BSE[:3, :64], sparse_transport(SCORES_BSE[:3], room_B[:3])[1], atol=1e-4)
    assert not plan_BSE[~mask_BS].any()
