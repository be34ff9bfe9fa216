"""Off-policy estimates against a simulated truth: unbiased, covered by their intervals, doubly robust."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.evaluation.offpolicy import Logged, OffPolicyValue, dr, ips, snips

NUM_ARMS = 3


def simulate(
    seed: int, *, wrong_model: bool = False, wrong_propensity: bool = False, greedy: bool = False
) -> tuple[Logged, float]:
    """Return a log of a softmax policy, read for another one, and the other one's true mean."""
    rng, num = np.random.default_rng(seed), 500
    x_N = rng.uniform(-1.0, 1.0, num)
    mean_NA = np.stack([0.5 + 0.3 * x_N, 0.5 - 0.3 * x_N, np.full(num, 0.45)], axis=1)
    logit_NA = np.stack([1.5 * x_N, np.zeros(num), -0.5 * x_N], axis=1)
    chance_NA = np.exp(logit_NA) / np.exp(logit_NA).sum(axis=1, keepdims=True)
    if greedy:
        chance_NA = np.eye(NUM_ARMS)[chance_NA.argmax(axis=1)]
    action_N = (rng.random((num, 1)) > chance_NA.cumsum(axis=1)[:, :-1]).sum(axis=1)
    reward_N = (rng.random(num) < mean_NA[np.arange(num), action_N]).astype(float)
    target_N = np.where(x_N > 0.2, 0, 1)
    model_NA = np.full_like(mean_NA, 0.2) if wrong_model else mean_NA
    rows = np.arange(num)
    propensity_N = np.full(num, 0.5) if wrong_propensity else chance_NA[rows, action_N]
    log = Logged(
        reward_N=reward_N,
        propensity_N=propensity_N,
        same_N=action_N == target_N,
        model_N=model_NA[rows, action_N],
        target_N=model_NA[rows, target_N],
    )
    # Of the population: x > 0.2 has 0.5 + 0.3 * 0.6, the rest 0.5 + 0.3 * 0.4.
    return log, 0.4 * 0.68 + 0.6 * 0.62


TRUTH = simulate(0)[1]
ESTIMATORS = {"ips": ips, "snips": snips, "dr": dr}


def values(name: str, count: int, **how: bool) -> list[OffPolicyValue]:
    found = [ESTIMATORS[name](simulate(seed, **how)[0]) for seed in range(count)]
    assert None not in found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_the_interval_covers_the_truth_as_often_as_it_says(name: str) -> None:
    found = values(name, 300)
    covered = np.mean([value.low <= TRUTH <= value.high for value in found])
    # 95 % of 300 draws, within three standard errors.
    assert 0.91 <= covered <= 0.985
    error = np.std([value.mean for value in found]) / math.sqrt(len(found))
    assert abs(np.mean([value.mean for value in found]) - TRUTH) < 3 * error


def test_a_good_model_narrows_the_interval_and_a_wrong_one_does_no_harm() -> None:
    spread = {name: np.std([value.mean for value in values(name, 120)]) for name in ESTIMATORS}
    assert spread["dr"] < 0.8 * spread["ips"]
    assert spread["snips"] < spread["ips"]
    wrong = values("dr", 120, wrong_model=True)
    assert abs(np.mean([value.mean for value in wrong]) - TRUTH) < 3 * np.std([v.mean for v in wrong]) / 11


def test_doubly_robust_survives_wrong_propensities_and_the_others_do_not() -> None:
    means = {name: np.mean([v.mean for v in values(name, 120, wrong_propensity=True)]) for name in ESTIMATORS}
    assert abs(means["dr"] - TRUTH) < 0.01
    assert abs(means["ips"] - TRUTH) > 0.05


def test_without_support_weighing_says_nothing_and_the_model_says_what_it_believes() -> None:
    log, truth = simulate(1, greedy=True)
    assert log.support < 1.0
    assert ips(log) is None
    assert snips(log) is None
    value = dr(log)
    assert value is not None
    assert value.mean == pytest.approx(truth, abs=0.06)


def test_a_case_by_hand() -> None:
    log = Logged(
        reward_N=np.array([1.0, 0.0, 1.0, 1.0]),
        propensity_N=np.array([0.5, 0.5, 0.25, 0.8]),
        same_N=np.array([True, True, True, False]),
        model_N=np.array([0.5, 0.5, 0.5, 0.9]),
        target_N=np.array([0.5, 0.5, 0.5, 0.1]),
    )
    first, second, third = ips(log), snips(log), dr(log)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.mean == pytest.approx((2 + 0 + 4 + 0) / 4)
    assert second.mean == pytest.approx(6 / 8)
    assert third.mean == pytest.approx((0.5 + 1.0 + 0.5 - 1.0 + 0.5 + 2.0 + 0.1) / 4)
    assert log.effective == pytest.approx(64 / 24)
    assert log.support == 1.0


def test_the_policy_that_logged_is_valued_at_what_it_gave() -> None:
    log, _ = simulate(2)
    same = Logged(
        reward_N=log.reward_N,
        propensity_N=np.ones(log.reward_N.size),
        same_N=np.ones(log.reward_N.size, bool),
        model_N=log.model_N,
        target_N=log.model_N,
    )
    for estimator in ESTIMATORS.values():
        value = estimator(same)
        assert value is not None
        assert value.mean == pytest.approx(log.reward_N.mean())


def test_what_is_unknown_or_impossible_is_refused() -> None:
    one = {"reward_N": [0.5], "propensity_N": [0.5], "same_N": [True], "model_N": [0.5], "target_N": [0.5]}
    for name, value in (("propensity_N", 0.0), ("propensity_N", 1.5), ("reward_N", math.nan)):
        arrays = {key: np.array(item) for key, item in {**one, name: [value]}.items()}
        with pytest.raises(InputError, match=name):
            Logged(**arrays)
    empty = Logged(**{key: np.array(item)[:0] for key, item in one.items()})
    assert (ips(empty), snips(empty), dr(empty), empty.effective) == (None, None, None, 0.0)
