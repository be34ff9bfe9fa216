"""Two deployments compared on a ledger whose truth is known."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.gateway.ledger_rows import decision, result, score, write_rows
from turnout.core.errors import InputError
from turnout.gateway.compare import Served, compare, failure_growth, objections
from turnout.gateway.schema import ShadowRow
from turnout.gateway.settings_rollout import RolloutSettings

NAMES = ("small", "large")
USD = {"small": 1e-5, "large": 2e-4}
SETTINGS = RolloutSettings(deployment="new")


def decided(
    number: int,
    *,
    side: bool,
    own: str,
    shadow: str,
    chosen: str,
    is_drawn: bool,
    explore: float,
    share: float,
    scores: str,
    unit: str,
) -> list[msgspec.Struct]:
    """Return what both sides decided on one request; the second one's is served where `side` is true."""
    served = decision(
        number,
        time_s=1.0,
        chosen=chosen,
        reason="best" if chosen == own else "explored",
        fingerprint="B" if side else "A",
        propensity=explore / 2 + (1 - explore if chosen == own else 0.0),
        branch="canary" if side else "live",
        unit=unit,
        scores=scores,
        own=own if is_drawn else None,
    )
    beside = ShadowRow(
        decision_id=served.decision_id,
        fingerprint="A" if side else "B",
        share=share,
        chosen=shadow,
        reason="best",
        propensity=1.0,
        scores=scores,
    )
    return [served, beside]


def write(
    path: Path,
    *,
    seed: int,
    num: int = 600,
    share: float = 0.3,
    explore: float = 0.0,
    bias: float = 0.0,
    better: float = 0.0,
    failing: float = 0.0,
    unit: int = 1,
) -> tuple[float, float]:
    """Fill a ledger; return how much better and dearer the second deployment truly is.

    The one in force takes `large` for what is hard; the second one takes `large` on another half. `better` is
    added to what the second one's choices give where they differ, `bias` to what both expect, `unit` requests
    stand and fall together.
    """
    rng = np.random.default_rng(seed)
    truth, rows = [], []
    side = hard = other = False
    shock = 0.0
    for number in range(num):
        if number % unit == 0:
            side = rng.random() < share
            hard, other = rng.random() < 0.5, rng.random() < 0.5
            shock = rng.normal(0, 0.4) if unit > 1 else 0.0
        quality = {"small": 0.4, "large": 0.6} if hard else {"small": 0.7, "large": 0.72}
        expected = dict(quality)  # no router knows how a unit fares on a day
        quality = {name: float(np.clip(value + shock, 0, 1)) for name, value in quality.items()}
        live, second = ("large" if hard else "small"), ("large" if other else "small")
        if live != second:
            quality[second] = min(1.0, quality[second] + better)
        truth.append((quality[second] - quality[live], USD[second] - USD[live]))
        own, shadow = (second, live) if side else (live, second)
        is_drawn = rng.random() < explore
        chosen = str(rng.choice(NAMES)) if is_drawn else own
        expectation = {name: (expected[name] + bias, USD[name] * 1.5) for name in NAMES}
        rows += decided(
            number, side=side, own=own, shadow=shadow, chosen=chosen, is_drawn=is_drawn, explore=explore,
            share=share, scores=json.dumps(expectation), unit=f"{number // unit:016x}",
        )  # fmt: skip
        if side and rng.random() < failing:
            rows.append(result(number, served=chosen, usd=None, status=502, error="upstream_error"))
        else:
            rows.append(result(number, served=chosen, usd=USD[chosen] * rng.uniform(0.8, 1.2)))
            rows.append(score(number, float(rng.random() < quality[chosen])))
    write_rows(path, rows)
    quality_mean, usd_mean = np.mean(truth, axis=0)
    return float(quality_mean), float(usd_mean)


@pytest.mark.parametrize(
    ("share", "explore", "bias", "unit"),
    [(0.3, 0.0, 0.0, 1), (0.0, 0.3, 0.2, 1), (0.3, 0.2, -0.2, 1), (0.3, 0.0, 0.0, 5)],
)
def test_the_bounds_hold_the_truth(
    tmp_path: Path, share: float, explore: float, bias: float, unit: int
) -> None:
    hits = []
    for seed in range(10):
        path = tmp_path / f"{seed}.sqlite"
        quality, usd = write(path, seed=seed, num=300, share=share, explore=explore, bias=bias, unit=unit)
        found = compare(path, "A", "B", confidence=0.975)
        assert (found.requests, found.scored, found.support) == (300, 300, 1.0)
        assert found.quality is not None
        assert found.usd is not None
        hits.append(
            (found.quality.low <= quality <= found.quality.high, found.usd.low <= usd <= found.usd.high)
        )
    # Of 10 intervals at 95 %, fewer than 7 would be a wonder.
    assert np.sum(hits, axis=0).min() >= 7


def test_requests_of_one_unit_count_as_one(tmp_path: Path) -> None:
    """The same rows, taken for independent, would look surer than they are."""
    write(tmp_path / "l.sqlite", seed=1, num=600, unit=10)
    clustered = compare(tmp_path / "l.sqlite", "A", "B").quality
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute("UPDATE decisions SET unit = decision_id")
    connection.close()
    single = compare(tmp_path / "l.sqlite", "A", "B").quality
    assert clustered is not None
    assert single is not None
    assert clustered.mean == single.mean
    assert clustered.high - clustered.low > 1.2 * (single.high - single.low)


def test_a_better_one_is_let_through_and_a_worse_one_is_not(tmp_path: Path) -> None:
    write(tmp_path / "good.sqlite", seed=2, num=2000, share=0.5, better=0.25)
    found = compare(tmp_path / "good.sqlite", "A", "B")
    assert objections(found, msgspec.structs.replace(SETTINGS, max_cost_growth=0.3)) == []
    write(tmp_path / "bad.sqlite", seed=2, num=2000, share=0.5, better=-0.3)
    said = objections(compare(tmp_path / "bad.sqlite", "A", "B"), SETTINGS)
    assert any("its loss of feedback may be" in one for one in said)
    # Without feedback as a margin it passes: that is what 1 means.
    assert (
        objections(
            compare(tmp_path / "bad.sqlite", "A", "B"),
            msgspec.structs.replace(SETTINGS, max_quality_loss=1.0, max_cost_growth=0.3),
        )
        == []
    )


def test_what_a_shadow_alone_cannot_tell_is_said(tmp_path: Path) -> None:
    write(tmp_path / "l.sqlite", seed=3, share=0.0)
    found = compare(tmp_path / "l.sqlite", "A", "B")
    assert found.support == pytest.approx(1 - found.changed)
    assert found.failures is None
    said = objections(found, msgspec.structs.replace(SETTINGS, max_quality_loss=1.0, max_cost_growth=9.0))
    assert len(said) == 1
    assert "had no chance to be asked" in said[0]


def test_failures_of_a_canary_speak_against_it(tmp_path: Path) -> None:
    write(tmp_path / "l.sqlite", seed=4, share=0.5, failing=0.2)
    found = compare(tmp_path / "l.sqlite", "A", "B")
    assert found.canary.failures > 30
    assert found.control.failures == 0
    assert any("share of failed requests may grow" in one for one in objections(found, SETTINGS))


def test_the_difference_of_two_shares_is_newcombes() -> None:
    # R. G. Newcombe, Statistics in Medicine 17, 1998, table II (method 10): 56/70 - 48/80.
    found = failure_growth(Served(requests=70, failures=56), Served(requests=80, failures=48), 0.975)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert failure_growth(Served(requests=0, failures=0), Served(requests=9, failures=0), 0.95) is None
    none = failure_growth(Served(requests=200, failures=0), Served(requests=2000, failures=0), 0.95)
    assert none is not None
    assert none.mean == 0.0
    assert none.high == pytest.approx(0.0133, abs=1e-3)


def test_few_requests_and_other_deployments_are_no_evidence(tmp_path: Path) -> None:
    write(tmp_path / "l.sqlite", seed=5, num=50)
    assert objections(compare(tmp_path / "l.sqlite", "A", "B"), SETTINGS) == [
        "50 requests with feedback were decided by both, of 200 needed"
    ]
    with closing(sqlite3.connect(tmp_path / "l.sqlite")) as connection, connection:
        connection.execute("UPDATE decisions SET time_s = 5.0 WHERE branch = 'canary'")
    late = compare(tmp_path / "l.sqlite", "A", "B", most=10)
    assert (late.requests, late.canary.requests + late.control.requests) == (10, 50)
    assert compare(tmp_path / "l.sqlite", "A", "B", since_s=4.0).control.requests == 0
    found = compare(tmp_path / "l.sqlite", "A", "C")
    assert (found.requests, found.quality, found.usd, found.usd_live) == (0, None, None, None)
    assert "0 requests" in objections(found, SETTINGS)[0]
    with pytest.raises(InputError, match="cannot be read as a ledger"):
        compare(tmp_path / "none.sqlite", "A", "B")


def test_a_mean_cost_is_never_below_zero_however_few_requests_there_are(tmp_path: Path) -> None:
    """Ten percent of a negative cost would forbid a second deployment that costs the same."""
    for seed in range(60):
        write(tmp_path / f"{seed}.sqlite", seed=seed, num=1, share=0.9)
        usd_live = compare(tmp_path / f"{seed}.sqlite", "A", "B").usd_live
        assert usd_live is None or usd_live >= 0.0
