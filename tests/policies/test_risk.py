from __future__ import annotations

import math

import numpy as np
import pytest

from turnout.core import InputError
from turnout.policies import measure_pairs
from turnout.policies.risk import (
    MIN_COUNT,
    binomial_cdf,
    conformal_threshold,
    fixed_sequence,
    hoeffding_bentkus,
    mean_bound,
    student_p_value,
    student_quantile,
)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    # Quantiles of Student's t as printed in common tables.
    [(0.95, 10, 1.8125), (0.975, 30, 2.0423), (0.99, 100, 2.3642), (0.95, 1000, 1.6464)],
)
def test_the_t_quantile_equals_the_table(probability: float, degrees: int, expected: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, abs=2e-3)
    if degrees >= MIN_COUNT:
        assert student_p_value(expected, 1.0, degrees) == pytest.approx(1 - probability, abs=1e-3)


def test_the_binomial_cdf_equals_the_direct_sum() -> None:
    direct = sum(math.comb(20, k) * 0.3**k * 0.7 ** (20 - k) for k in range(8))
    assert binomial_cdf(7, 20, 0.3) == pytest.approx(direct, rel=1e-12)
    assert binomial_cdf(20, 20, 0.3) == 1.0
    assert binomial_cdf(-1, 20, 0.3) == 0.0


def test_zero_losses_need_the_known_number_of_samples() -> None:
    # Clopper-Pearson at alpha .05 and delta .1 needs 45 losses of zero, (1 - alpha)^n <= delta, and so
    # does the Hoeffding arm.
    assert hoeffding_bentkus(0.0, 45, 0.05) <= 0.1 < hoeffding_bentkus(0.0, 44, 0.05)


def test_the_p_value_is_valid_when_the_mean_loss_is_just_above_alpha() -> None:
    rng = np.random.default_rng(0)
    losses = rng.random((4000, 200)) < 0.2
    rejected = [hoeffding_bentkus(float(row.mean()), 200, 0.2) <= 0.1 for row in losses]
    assert np.mean(rejected) <= 0.1


def test_fixed_sequence_stops_at_the_first_failure() -> None:
    assert fixed_sequence([0.01, 0.04, 0.2, 0.001], 0.05) == 2
    assert fixed_sequence([0.2, 0.0], 0.05) == 0
    assert fixed_sequence([], 0.05) == 0


def test_conformal_risk_control_keeps_the_expected_loss_over_calibration_draws() -> None:
    rng = np.random.default_rng(1)
    thresholds = np.linspace(0.0, 1.0, 41)
    risks = []
    for _ in range(400):
        difficulty = rng.random(100)
        loss_PQ = (difficulty[None, :] < thresholds[:, None]).astype(float)
        count = conformal_threshold(loss_PQ, 0.2)
        risks.append(thresholds[count - 1] if count else 0.0)
    assert np.mean(risks) <= 0.2
    assert np.mean(risks) > 0.15


def test_the_bound_of_a_mean_covers_at_its_confidence() -> None:
    rng = np.random.default_rng(2)
    samples = rng.exponential(1.0, (2000, 400))
    low = [mean_bound(x.mean(), x.var(ddof=1), 400, confidence=0.95, is_upper=False) for x in samples]
    assert np.mean(np.array(low) <= 1.0) == pytest.approx(0.95, abs=0.02)
    assert mean_bound(0.5, 0.1, 1, confidence=0.95, is_upper=True) == math.inf


def test_a_p_value_without_knowledge_is_one() -> None:
    assert student_p_value(float("nan"), 0.1, 10) == 1.0
    assert student_p_value(1.0, 0.1, 0) == 1.0
    assert student_p_value(-1.0, 0.0, 100) == 1.0
    assert student_p_value(1.0, 0.1, MIN_COUNT - 2) == 1.0


def test_alpha_outside_its_interval_is_refused() -> None:
    with pytest.raises(InputError, match=r"alpha; allowed: a number in \(0, 1\)"):
        hoeffding_bentkus(0.1, 10, 1.0)


@pytest.mark.parametrize("count", [3, 20, 30, 50, 100, 300])
@pytest.mark.parametrize(("cheap", "best"), [(0.90, 1.0), (0.93, 0.99), (0.80, 0.90)])
def test_a_broken_floor_is_promised_no_more_often_than_stated_whatever_the_count(
    count: int, cheap: float, best: float
) -> None:
    """Rare failures hide in small samples: a plain t test promised these in up to 3 of 4 draws."""
    rng = np.random.default_rng(count)
    draws = 600
    best_DQ = (rng.random((draws, count)) < best).astype(float)
    cheap_DQ = best_DQ * (rng.random((draws, count)) < cheap / best)
    promised = 0
    for cheap_Q, best_Q in zip(cheap_DQ, best_DQ, strict=True):
        usd_Q = np.full((1, count), 0.001)
        pairs = measure_pairs(cheap_Q[None], usd_Q, best_Q[None], usd_Q)
        promised += pairs.quality(0, 0, share=0.95).p_value() <= 0.05
    assert promised / draws <= 0.05 + 0.02
