from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.bootstrap import group_numbers, resampled_means
from turnout.evaluation.value import Value, interval


def draws(
    values: np.ndarray, *, seed: int = 0, num: int = 400, groups: np.ndarray | None = None
) -> np.ndarray:
    return resampled_means(values, num_resamples=num, rng=np.random.default_rng(seed), groups_Q=groups)


def test_the_same_seed_gives_the_same_draws_and_another_seed_others() -> None:
    values = np.random.default_rng(0).random((50, 3))
    assert (draws(values) == draws(values)).all()
    assert (draws(values) != draws(values, seed=1)).any()


def test_columns_share_their_resamples() -> None:
    base = np.random.default_rng(0).random((40, 1))
    both = draws(np.concatenate([base, base + 0.25], axis=1))
    assert (both[:, 1] - both[:, 0]).tolist() == pytest.approx([0.25] * 400, abs=1e-6)


def test_a_constant_column_does_not_move() -> None:
    assert draws(np.full((30, 1), 0.5)).ravel().tolist() == pytest.approx([0.5] * 400)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((64, 2))
    whole = draws(values)
    monkeypatch.setattr("turnout.evaluation.bootstrap.CHUNK_CELLS", 640)
    assert draws(values) == pytest.approx(whole, abs=1e-6)


def test_the_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(0).random((400, 1))
    assert draws(values, num=4000).std() == pytest.approx(values.std() / 20, rel=0.06)


def test_equal_values_inside_groups_make_the_groups_the_sample() -> None:
    # 20 groups of 25 equal values know as much as 20 values: the error is 5 times that of 500.
    values = np.repeat(np.random.default_rng(0).random(20), 25)[:, None]
    groups = group_numbers([k // 25 for k in range(500)])
    alone, clustered = draws(values, num=4000).std(), draws(values, num=4000, groups=groups).std()
    assert clustered / alone == pytest.approx(5.0, rel=0.1)


def test_groups_of_unequal_size_keep_the_mean_of_the_queries() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    groups = group_numbers(["a", "a", "a", "b"])
    # Of two drawn groups: both a (1), both b (0), or one each (3/4).
    found, count = np.unique(draws(values, groups=groups).round(6), return_counts=True)
    assert found.tolist() == pytest.approx([0.0, 0.75, 1.0])
    assert (count / 400).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.08)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(300):
        sample = (rng.random((150, 1)) < 0.7).astype(np.float64)
        found = interval(float(sample.mean()), draws(sample, seed=trial, num=300)[:, 0], 0.9)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.7 <= found.high
    # Three standard errors of 300 trials at .9 are .052.
    assert 0.84 <= hits / 300 <= 0.96


def test_an_interval_is_withheld_when_the_number_is_often_undefined() -> None:
    sample = np.linspace(0, 1, 100)
    sample[:4] = np.nan
    assert interval(0.5, sample, 0.9).low is not None
    sample[:10] = np.nan
    assert interval(0.5, sample, 0.9) == Value(0.5)
    assert interval(float("nan"), sample, 0.9) == Value(None)


def test_a_value_prints_itself() -> None:
    assert str(Value(0.5, 0.4, 0.6)) == "0.5000 [0.4000, 0.6000]"
    assert Value(0.012, -0.004, None).format("+.1f", scale=100) == "+1.2 [-0.4, n/a]"
    assert str(Value(None)) == "n/a"
    assert Value(0.2, 0.1, 0.3).excludes_zero
    assert not Value(0.2, -0.1, 0.3).excludes_zero
