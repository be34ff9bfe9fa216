from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.calibration import brier, calibration, ece


def test_ece_and_brier_by_hand() -> None:
    estimated = np.array([0.9, 0.9, 0.1, 0.1, 1.0])
    recorded = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    # The last bin holds .9, .9 and 1.0: mean 2.8/3 against 2/3, weight 3/5; the bin of .1: .1, weight 2/5.
    assert ece(estimated, recorded) == pytest.approx(0.6 * 0.8 / 3 + 0.4 * 0.1)
    assert brier(estimated, recorded) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 0.0) / 5)


def test_a_perfect_estimate_has_no_error() -> None:
    sure = np.array([0.0, 1.0, 1.0])
    assert (ece(sure, sure), brier(sure, sure)) == (0.0, 0.0)


def test_only_pairs_known_on_both_sides_count() -> None:
    found = calibration(np.array([[0.5, np.nan], [0.5, 0.2]]), np.array([[1.0, 1.0], [np.nan, 0.2]]))
    assert found is not None
    assert found.count == 2
    assert [found.ece, found.brier] == pytest.approx([0.25, 0.125])
    assert calibration(np.array([np.nan]), np.array([1.0])) is None
