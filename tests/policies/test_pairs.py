from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Goal, InputError
from turnout.core.scoring import LEAST_PRICE
from turnout.policies import Guard, measure_pairs, measure_singles
from turnout.policies.pairs import Difference
from turnout.policies.risk import honest_variance

RNG = np.random.default_rng(0)
QUALITY_KQ, QUALITY_MQ = RNG.random((4, 60)), RNG.random((3, 60))
USD_KQ, USD_MQ = RNG.random((4, 60)) / 100, RNG.random((3, 60)) / 100


def test_a_difference_of_qualities_has_the_moments_of_numpy() -> None:
    pairs = measure_pairs(QUALITY_KQ, USD_KQ, QUALITY_MQ, USD_MQ)
    for share in (1.0, 0.9):
        expected = QUALITY_KQ[2] - share * QUALITY_MQ[1]
        found = pairs.quality(2, 1, share=share)
        assert found.mean == pytest.approx(expected.mean())
        assert found.variance == pytest.approx(honest_variance(expected.var(ddof=1), 60, 1.0))
        assert found.count == 60


def test_the_worth_at_a_price_has_the_moments_of_numpy() -> None:
    pairs = measure_pairs(QUALITY_KQ, USD_KQ, QUALITY_MQ, USD_MQ)
    for price in (0.0, 3.0, 500.0):
        expected = (QUALITY_KQ[0] - price * USD_KQ[0]) - (QUALITY_MQ[2] - price * USD_MQ[2])
        found = pairs.worth(0, 2, price)
        assert found.mean == pytest.approx(expected.mean())
        assert found.variance == pytest.approx(honest_variance(expected.var(ddof=1), 60, 1.0))
    saved = pairs.worth(0, 2, np.inf)
    assert saved.mean == pytest.approx((USD_MQ[2] - USD_KQ[0]).mean())
    dearest = pairs.worth(0, 2, 1.0 / LEAST_PRICE)
    assert np.isfinite(dearest.variance)
    error = dearest.mean / np.sqrt(dearest.variance)
    assert error == pytest.approx(saved.mean / np.sqrt(saved.variance)), "as sure as of the saving"


def test_what_was_not_observed_is_left_out_pair_by_pair() -> None:
    holes_KQ = np.where(RNG.random(QUALITY_KQ.shape) < 0.4, np.nan, QUALITY_KQ)
    holes_MQ = np.where(RNG.random(QUALITY_MQ.shape) < 0.4, np.nan, QUALITY_MQ)
    usd_holes_KQ = np.where(RNG.random(USD_KQ.shape) < 0.4, np.nan, USD_KQ)
    pairs = measure_pairs(holes_KQ, usd_holes_KQ, holes_MQ, USD_MQ)
    for k in range(4):
        for m in range(3):
            both = np.isfinite(holes_KQ[k]) & np.isfinite(holes_MQ[m])
            expected = (holes_KQ[k] - holes_MQ[m])[both]
            assert pairs.quality(k, m).count == both.sum()
            assert pairs.quality(k, m).mean == pytest.approx(expected.mean())
            honest = honest_variance(expected.var(ddof=1), expected.size, 1.0)
            assert pairs.quality(k, m).variance == pytest.approx(honest)
            money = np.isfinite(usd_holes_KQ[k])
            saved = (USD_MQ[m] - usd_holes_KQ[k])[money]
            assert pairs.saved_usd(k, m).mean == pytest.approx(saved.mean())
            assert pairs.saved_usd(k, m).variance == pytest.approx(saved.var(ddof=1))
            four = both & money
            cross = np.cov((holes_KQ[k] - holes_MQ[m])[four], (usd_holes_KQ[k] - USD_MQ[m])[four])[0, 1]
            assert pairs.at("cross_cov", k, m) == pytest.approx(cross)


def test_unknown_money_stays_unknown() -> None:
    nothing_KQ, nothing_MQ = np.full_like(USD_KQ, np.nan), np.full_like(USD_MQ, np.nan)
    pairs = measure_pairs(QUALITY_KQ, nothing_KQ, QUALITY_MQ, nothing_MQ)
    saved = pairs.saved_usd(0, 0)
    assert np.isnan(saved.mean)
    assert saved.count == 0
    assert saved.low(0.95) == -np.inf
    assert saved.p_value() == 1.0


def test_what_stands_in_for_many_outcomes_widens_the_variance_by_what_it_may_hide() -> None:
    reach = np.full((4, 60), 3.0), np.ones((3, 60))
    pairs = measure_pairs(QUALITY_KQ, USD_KQ, QUALITY_MQ, USD_MQ, reach=reach)
    plain = measure_pairs(QUALITY_KQ, USD_KQ, QUALITY_MQ, USD_MQ)
    wide = honest_variance(plain.quality(0, 1).variance, 60, 3.0) - honest_variance(0.0, 60, 1.0)
    assert pairs.quality(0, 1).variance == pytest.approx(wide)
    singles = measure_singles(QUALITY_MQ, USD_MQ, 1, reach_MQ=np.full((3, 60), 3.0))
    assert singles.quality(0, 0).variance > measure_singles(QUALITY_MQ, USD_MQ, 1).quality(0, 0).variance


def test_fewer_than_two_queries_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2; got: 1"):
        measure_pairs(QUALITY_KQ[:, :1], USD_KQ[:, :1], QUALITY_MQ[:, :1], USD_MQ[:, :1])


def test_a_choice_that_nobody_shares_a_query_with_opens_nothing_and_promises_nothing() -> None:
    blind_KQ = QUALITY_KQ.copy()
    blind_KQ[1] = np.nan
    pairs = measure_pairs(blind_KQ, USD_KQ, QUALITY_MQ, USD_MQ)
    gained = pairs.quality(1, 0)
    assert gained.count == 0
    assert np.isnan(gained.mean)
    assert gained.low(0.9) == -np.inf
    assert gained.p_value() == 1.0
    verdict = Guard(options=pairs, confidence=0.9).judge(Goal(), option=1, price=0.0, single=0, best=0)
    assert not verdict.is_open
    assert verdict.describe() == "no held-out query has what is compared"


def test_a_cost_that_is_always_the_same_has_exactly_that_mean_and_no_variance() -> None:
    usd_MQ = np.vstack([np.zeros(60), np.full(60, 0.1), USD_MQ[0]])
    pairs = measure_pairs(QUALITY_KQ[:3], usd_MQ, QUALITY_MQ, usd_MQ)
    assert pairs.at("usd", 0, 2) == 0.0
    assert pairs.at("usd", 1, 0) == 0.1
    assert pairs.at("single_usd", 2, 0) == 0.0
    assert pairs.saved_usd(0, 0) == Difference(mean=0.0, variance=0.0, count=60)


def test_where_nothing_can_be_saved_a_floor_asks_for_the_better_of_both() -> None:
    better_Q = np.clip(QUALITY_MQ[:1] + 0.2, 0.0, 1.0)
    free = np.zeros((1, 60))
    goal = Goal(quality_floor=0.9)
    for usd, expected in ((0.0, (True, "quality")), (1e-6, (False, "usd per 1,000"))):
        pairs = measure_pairs(better_Q, free + usd, QUALITY_MQ[:1], free)
        verdict = Guard(options=pairs, confidence=0.9).judge(goal, option=0, price=0.0, single=0, best=0)
        assert (verdict.is_open, verdict.unit) == expected


def test_moments_of_two_parts_join_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(8)
    quality_KQ, quality_MQ = rng.random((3, 60)), rng.random((2, 60))
    quality_KQ[1, 5:9], quality_MQ[0, 40:44] = np.nan, np.nan
    usd_KQ, usd_MQ = quality_KQ + rng.random((3, 60)), quality_MQ * rng.random((2, 60))
    every = (quality_KQ, usd_KQ, quality_MQ, usd_MQ)
    first, second = (measure_pairs(*(x[:, rows] for x in every)) for rows in (slice(0, 25), slice(25, 60)))
    whole = measure_pairs(*every)
    np.testing.assert_allclose(first.joined(second).moments_SKM, whole.moments_SKM, rtol=1e-9)


def test_joining_a_part_where_nothing_is_known_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    values = (
        rng.random((2, 30)),
        rng.random((2, 30)) * np.nan,
        rng.random((2, 30)),
        rng.random((2, 30)) * np.nan,
    )
    pairs = measure_pairs(*values)
    nothing = measure_singles(np.full((2, 30), np.nan), np.full((2, 30), np.nan), 0)
    np.testing.assert_allclose(pairs.joined(nothing).moments_SKM, pairs.moments_SKM, equal_nan=True)
