"""RouterXBench's three bands by worked numbers, and what holds for the best and for a blind score."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.evaluation.scenarios import auroc, call_curve, scenarios


def pair(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a weak model that is right on the first half and a strong one that is always right."""
    return (np.arange(num) < num // 2).astype(np.float64), np.ones(num)


def test_bands_of_a_worked_case() -> None:
    weak, strong = pair(1_000)
    # A perfect score: every call up to one half gains, so quality is 0.5 + share until 1.
    found = scenarios(weak, weak, strong)
    assert found.ability == 1.0
    # Equal scores go together, so between none and one half the curve is a line.
    assert found.low == pytest.approx(0.55)
    # 70 to 90 per cent of the gap are recovered by 0.35 to 0.45 of the calls, 0.40 on average.
    assert found.high == pytest.approx(0.60)
    # The mean of 0.5 + share over shares of 0.11 to 0.34.
    assert found.middle == pytest.approx(0.725)


def test_a_blind_score_needs_as_many_calls_as_it_recovers() -> None:
    weak, strong = pair(10_000)
    found = scenarios(np.random.default_rng(0).random(10_000), weak, strong)
    assert found.ability == pytest.approx(0.5, abs=0.02)
    assert found.high == pytest.approx(0.2, abs=0.02)
    assert scenarios(np.zeros(10_000), weak, strong).low == pytest.approx(0.525)


def test_the_order_of_equal_scores_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    score, weak, strong = rng.integers(0, 4, 60) / 4.0, rng.random(60), rng.random(60)
    order = rng.permutation(60)
    share, quality = call_curve(score, weak, strong)
    again = call_curve(score[order], weak[order], strong[order])
    np.testing.assert_allclose(share, again[0])
    np.testing.assert_allclose(quality, again[1])
    assert (share[0], share[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(quality[[0, -1]], [weak.mean(), strong.mean()])


def test_the_area_is_that_of_counted_pairs() -> None:
    rng = np.random.default_rng(2)
    score, is_right = rng.integers(0, 6, 40) / 6.0, rng.random(40) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in score[is_right] for n in score[~is_right]]
    assert auroc(score, is_right) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(score, np.ones(40, np.bool_)))


def test_what_is_undefined_is_nan_and_what_is_wrong_is_refused() -> None:
    weak, strong = pair(100)
    # Without any gap nothing of it can be recovered.
    flat = scenarios(weak, strong, strong)
    assert np.isnan([flat.high, flat.middle, flat.ability]).all()
    # Where both fail, the weak model is not able; of graded answers the better one counts.
    both = scenarios(np.array([0.1, 0.2, 0.9]), np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    graded = scenarios(np.array([0.1, 0.2, 0.9]), np.array([0.3, 0.2, 0.6]), np.array([0.4, 0.4, 0.5]))
    assert (both.ability, graded.ability) == (1.0, 1.0)
    with pytest.raises(InputError, match="low_calls"):
        scenarios(weak, weak, strong, low_calls=(0.2, 0.1))
    with pytest.raises(InputError, match="NaN"):
        scenarios(np.full(100, np.nan), weak, strong)
    with pytest.raises(InputError, match="every query"):
        call_curve(weak[:0], weak[:0], weak[:0])
