from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.pools import random_estimate
from turnout.core import Budget, UnknownNameError
from turnout.policies import Threshold, threshold_for_share

RNG = np.random.default_rng(0)


@given(seed=st.integers(0, 10_000), threshold=st.floats(-1.0, 1.0))
def test_the_strong_one_serves_where_the_gain_reaches_the_threshold(seed: int, threshold: float) -> None:
    estimate = random_estimate(seed, num_candidates=3)
    decisions = Threshold(weak="m0", strong="m2", threshold=threshold).decide(estimate, Budget(), RNG)
    gain_Q = estimate.quality_QM[:, 2] - estimate.quality_QM[:, 0]
    assert (decisions.choice_Q == np.where(gain_Q >= threshold, 2, 0)).all()
    assert not (decisions.choice_Q == 1).any()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_calibrated_threshold_gives_the_asked_share_of_strong_calls(share: float) -> None:
    estimate = random_estimate(7, 400, 2)
    gain_Q = estimate.quality_QM[:, 1] - estimate.quality_QM[:, 0]
    threshold = threshold_for_share(gain_Q, share)
    assert (gain_Q >= threshold).mean() == pytest.approx(share)


def test_the_other_of_the_pair_serves_where_one_may_not() -> None:
    estimate = random_estimate(8, 3, 3)
    mask_QM = np.array([[True, True, False]] * 3)
    decisions = Threshold(weak="m0", strong="m2", threshold=-1.0).decide(
        estimate.restrict(mask_QM), Budget(), RNG
    )
    assert set(decisions.names_Q) == {"m0"}


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="m9"):
        Threshold(weak="m0", strong="m9").decide(random_estimate(1), Budget(), RNG)
