"""One query is decided as it is in a batch, whatever is unknown, tied or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.pools import make_pool
from turnout.core import Budget, Estimate, make_estimate
from turnout.core.scoring import score
from turnout.policies.choose import NOBODY, UNKNOWN, decide_by_score

_TIED = [0.0, 0.25, 0.5, 1.0, np.nan]


def draw_estimate(seed: int, num_queries: int) -> Estimate:
    """Return an estimate with ties, unknown cells and masks, the whole row at times."""
    rng = np.random.default_rng(seed)
    shape = (num_queries, 4)
    return make_estimate(
        make_pool(4),
        rng.choice(_TIED, shape),
        cost_usd_QM=rng.choice(_TIED, shape),
        latency_s_QM=rng.choice(_TIED, shape),
        allowed_QM=(rng.random(shape) < 0.6) & (rng.random((num_queries, 1)) < 0.9),
    )


@given(
    seed=st.integers(0, 10_000),
    price=st.sampled_from([0.0, 0.5, 3.0, np.inf]),
    cap=st.sampled_from([None, 0.3]),
)
def test_one_query_is_decided_as_in_a_batch(seed: int, price: float, cap: float | None) -> None:
    estimate, budget = draw_estimate(seed, 8), Budget(price=price, usd_per_query=cap, max_latency_s=cap)
    score_QM = score(estimate.quality_QM, estimate.cost_usd_QM, price)
    together = decide_by_score(estimate, score_QM, budget, reason="why")
    for row in range(8):
        part = slice(row, row + 1)
        alone = decide_by_score(estimate.rows(part), score_QM[part], budget, reason="why")
        for name in ("choice_Q", "ranked_QM", "propensity_Q", "quality_Q", "cost_usd_Q"):
            expected, found = getattr(together, name)[part], getattr(alone, name)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
        assert alone.reason_Q == together.reason_Q[part]
        assert alone.price == together.price


@pytest.mark.parametrize("num_queries", [1, 2])
def test_a_reason_says_who_was_left(num_queries: int) -> None:
    unknown_QM = np.full((num_queries, 4), np.nan)
    estimate = make_estimate(make_pool(4), unknown_QM)
    assert set(decide_by_score(estimate, unknown_QM, Budget(), reason="why").reason_Q) == {UNKNOWN}
    nobody = estimate.restrict(np.zeros(4, np.bool_))
    decisions = decide_by_score(nobody, unknown_QM, Budget(), reason="why")
    assert set(decisions.reason_Q) == {NOBODY}
    assert set(decisions.names_Q) == {None}
