from __future__ import annotations

import itertools

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.gradients.score_function import leave_one_out, score_function_loss
from turnout.nn.gradients.sparse_mixer import sparse_mixer
from turnout.nn.gradients.straight_through import gumbel_one_hot, straight_through
from turnout.nn.gradients.truth import (
    ESTIMATORS,
    Problem,
    judge,
    reinforce,
    reinforce_leave_one_out,
    reinforce_with_baseline,
    sampled,
    sparse_mixer_v2,
    top_one,
)


def problem(seed: int, *, cubic: float = 0.0) -> Problem:
    random = torch.Generator().manual_seed(seed)
    return Problem(
        outputs_ED=torch.randn(4, 3, generator=random, dtype=torch.double),
        logits_E=torch.randn(4, generator=random, dtype=torch.double),
        target_D=torch.randn(3, generator=random, dtype=torch.double),
        cubic=cubic,
    )


def test_the_exact_gradient_is_the_slope_of_the_expected_loss() -> None:
    for seed in range(3):
        one = problem(seed, cubic=1.0)
        for e in range(4):
            step_E = 1e-5 * torch.eye(4, dtype=torch.double)[e]
            above, below = (
                Problem(outputs_ED=one.outputs_ED, logits_E=z_E, target_D=one.target_D, cubic=1.0).expected()
                for z_E in (one.logits_E + step_E, one.logits_E - step_E)
            )
            assert float(one.exact()["total"][e]) == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("estimator", [reinforce, reinforce_with_baseline, reinforce_leave_one_out])
def test_score_functions_have_no_bias(estimator) -> None:
    for seed in range(4):
        found = judge(problem(seed, cubic=1.0), estimator, num_samples=50_000)
        assert found.bias < 4 * found.bias_error


def test_baselines_cost_less_variance() -> None:
    for seed in range(4):
        one = problem(seed)
        plain, based = judge(one, reinforce), judge(one, reinforce_with_baseline)
        assert based.deviation < plain.deviation


def test_weights_alone_are_exact_for_their_part_and_biased_for_the_whole() -> None:
    for seed in range(4):
        one = problem(seed)
        part = judge(one, sampled, part="weight", num_samples=50_000)
        assert part.bias < 4 * part.bias_error
        whole = judge(one, sampled)
        assert whole.bias > 10 * whole.bias_error


def test_top_one_has_bias_and_no_variance() -> None:
    found = judge(problem(0), top_one)
    assert found.deviation < 1e-9
    assert found.bias > 0.05


def test_sparse_mixer_integrates_a_cubic_loss_exactly_but_for_the_best_expert() -> None:
    """GRIN's promise: E = sum_i p_i dlog p_i (l(w_i) - l(0)), with l'(w) w for the best; w_i = p_i.

    Heun's rule is exact for polynomials up to the third degree of the weight; a rule of lower order, such as
    the slope at the whole weight for all experts, is not.
    """
    for seed in range(4):
        one = problem(seed, cubic=2.0)
        p_E = one.logits_E.softmax(-1)
        nothing = one.loss(torch.zeros(1, 3, dtype=torch.double))
        gain_E = one.loss(p_E[:, None] * one.outputs_ED) - nothing
        y_ED = (p_E[:, None] * one.outputs_ED).requires_grad_()
        slope_E = (torch.autograd.grad(one.loss(y_ED).sum(), y_ED)[0] * y_ED.detach()).sum(-1)
        top = int(p_E.argmax())
        gain_E[top] = slope_E[top]
        expected_E = (p_E * gain_E) @ (torch.eye(4, dtype=torch.double) - p_E)
        first_order_E = (p_E * slope_E) @ (torch.eye(4, dtype=torch.double) - p_E)
        z_NE = one.logits_E.expand(400_000, -1).clone().requires_grad_()
        (sample_NE,) = torch.autograd.grad(sparse_mixer_v2(one, z_NE), z_NE)
        error_E = sample_NE.std(0) / 400_000**0.5
        assert bool(((sample_NE.mean(0) - expected_E).abs() < 4.5 * error_E).all())
        assert bool(((sample_NE.mean(0) - first_order_E).abs() > 4.5 * error_E).any())


def test_sparse_mixer_samples_by_the_softmax_and_takes_the_best_in_eval() -> None:
    logits_TE = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(40_000, 4)
    weights_TK, indices_TK = sparse_mixer(logits_TE, 1, jitter=float("inf"))
    p_E = logits_TE[0].softmax(-1)
    share_E = torch.bincount(indices_TK[:, 0], minlength=4) / 40_000
    assert share_E.tolist() == pytest.approx(p_E.tolist(), abs=0.01)
    ratio_T = weights_TK[:, 0] / p_E[indices_TK[:, 0]]
    not_best_T = indices_TK[:, 0] != 0
    assert bool((ratio_T[~not_best_T] == 1).all())
    assert float((ratio_T[not_best_T] > 0.9).double().mean()) == pytest.approx(0.25, abs=0.02)
    weights_TK, indices_TK = sparse_mixer(logits_TE, 2, jitter=float("inf"), training=False)
    assert torch.equal(indices_TK[0], torch.tensor([0, 1]))
    assert weights_TK[0].tolist() == pytest.approx([float(p_E[0]), float(logits_TE[0, 1:].softmax(-1)[0])])


def test_sparse_mixer_closes_what_is_far_behind() -> None:
    logits_TE = torch.tensor([[1.0, 0.95, 0.5, -2.0]]).expand(1000, 4)
    _, indices_TK = sparse_mixer(logits_TE, 1, jitter=0.05)
    assert set(indices_TK[:, 0].tolist()) == {0, 1}
    _, indices_TK = sparse_mixer(logits_TE, 1, jitter=0.0)
    assert set(indices_TK[:, 0].tolist()) == {0}


def test_sparse_mixer_never_takes_an_expert_twice() -> None:
    _, indices_TK = sparse_mixer(torch.randn(500, 5), 5, jitter=float("inf"))
    assert bool((indices_TK.sort(-1)[0] == torch.arange(5)).all())


def test_gumbel_choices_are_samples_and_pass_the_soft_gradient() -> None:
    logits_TE = torch.tensor([[1.0, 0.0, -1.0]]).expand(30_000, 3).clone().requires_grad_()
    hard_TE = gumbel_one_hot(logits_TE)
    assert bool(torch.isclose(hard_TE.detach().sum(-1), torch.ones(())).all())
    assert hard_TE.detach().mean(0).tolist() == pytest.approx(logits_TE[0].softmax(-1).tolist(), abs=0.02)
    hard_TE[:, 0].sum().backward()
    assert logits_TE.grad is not None
    assert bool((logits_TE.grad[:, 0] > 0).all())
    soft = torch.tensor([0.3], requires_grad=True)
    straight_through(torch.ones(1), soft).backward()
    assert soft.grad is not None
    assert soft.grad.tolist() == [1.0]


def test_every_estimator_that_samples_points_along_the_gradient_on_average() -> None:
    for (name, estimator), seed in itertools.product(ESTIMATORS.items(), range(2)):
        found = judge(problem(seed), estimator, num_samples=5000)
        assert found.cosine > 0.6 or estimator is top_one, name


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="1 <= k <= E = 3"):
        sparse_mixer(torch.rand(2, 3), 4)
    with pytest.raises(InputError, match="temperature"):
        gumbel_one_hot(torch.rand(2, 3), temperature=0.0)
    with pytest.raises(InputError, match=r"\(T, E\)"):
        gumbel_one_hot(torch.rand(3))
    with pytest.raises(ShapeError, match="N > 1"):
        leave_one_out(torch.rand(3, 1))
    with pytest.raises(ShapeError, match=r"\(N,\) and \(N,\)"):
        score_function_loss(torch.rand(3), torch.rand(4))


def test_sparse_mixer_measures_how_far_is_far_by_the_larger_magnitude() -> None:
    """Of -1 and -1.5 the gap is a third of the larger, and half of the better one, which does not count."""
    logits_TE = torch.tensor([[-1.0, -1.5]])
    open_TK, _ = sparse_mixer(logits_TE, 1, jitter=0.2, training=False)
    assert float(open_TK) == pytest.approx(float(logits_TE[0].softmax(-1)[0]))
    closed_TK, _ = sparse_mixer(logits_TE, 1, jitter=0.16, training=False)
    assert float(closed_TK) == 1.0
