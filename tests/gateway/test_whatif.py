"""What another dial would have given, from a ledger whose truth is known."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.gateway.ledger_rows import decision, result, score, write_rows
from tests.gateway.pool import make_deployment
from turnout.cli.main import main
from turnout.core import Goal
from turnout.core.artifact import save
from turnout.core.errors import InputError
from turnout.gateway.whatif import what_if
from turnout.policies import Best

NAMES = ("small", "large")
WORTH = 2e-3
"""USD for one more right answer at the other dial: a price of 500 quality per USD."""


def write(
    path: Path, *, seed: int, num: int = 400, chance: float = 0.3, bias: float = 0.0
) -> tuple[float, float]:
    """Fill a ledger; return the true mean cost and quality of the other dial.

    The log chose the other dial's own candidate with probability 1 - `chance`, and else the other one.
    `bias` is how wrong the router's expectation of quality is.
    """
    rng = np.random.default_rng(seed)
    truth = [(0.0, 0.0)] if num == 0 else []
    rows: list[msgspec.Struct] = []
    for number in range(num):
        quality = {"small": rng.uniform(0.2, 0.9), "large": rng.uniform(0.6, 0.95)}
        usd = {"small": rng.uniform(1e-5, 5e-5), "large": rng.uniform(2e-4, 6e-4)}
        target = max(NAMES, key=lambda name: quality[name] - usd[name] / WORTH)
        truth.append((usd[target], quality[target]))
        is_other = rng.random() < chance
        chosen = next(name for name in NAMES if (name == target) != is_other)
        scores = json.dumps({name: (quality[name] + bias, usd[name]) for name in NAMES})
        propensity = (chance if is_other else 1.0 - chance) if chance else 1.0
        rows += [
            decision(number, time_s=time.time() - 60.0, chosen=chosen, propensity=propensity, scores=scores),
            result(number, served=chosen, usd=usd[chosen] * rng.uniform(0.5, 1.5)),
            score(number, float(rng.random() < quality[chosen])),
        ]
    write_rows(path, rows)
    usd_mean, quality_mean = np.mean(truth, axis=0)
    return float(usd_mean), float(quality_mean)


GOAL = Goal(usd_per_quality=WORTH)


def test_requests_without_a_price_are_named_as_such(tmp_path: Path) -> None:
    scores = json.dumps(dict.fromkeys(NAMES, (0.5, 0.0001)))
    at = time.time() - 60.0
    rows = [decision(0, time_s=at, chosen="small", propensity=0.5, scores=scores)]
    write_rows(tmp_path / "l.sqlite", [*rows, result(0, served="small", usd=None)])
    with pytest.raises(InputError, match=r"1 without a known price.*prices\.path"):
        what_if(tmp_path / "l.sqlite", make_deployment(), [GOAL])


def test_the_intervals_cover_what_would_have_come(tmp_path: Path) -> None:
    hits = []
    for seed in range(30):
        path = tmp_path / f"{seed}.sqlite"
        usd, quality = write(path, seed=seed)
        other = what_if(path, make_deployment(), [GOAL]).outlooks[1]
        assert other.feedback is not None
        assert other.feedback_weighed is not None
        assert other.expected_quality == pytest.approx(quality)
        hits.append(
            (
                other.usd.low <= usd <= other.usd.high,
                other.feedback.low <= quality <= other.feedback.high,
                other.feedback_weighed.low <= quality <= other.feedback_weighed.high,
            )
        )
    # Of 30 intervals at 95 %, fewer than 25 would be a wonder.
    assert np.sum(hits, axis=0).min() >= 25


def test_a_router_that_expects_too_much_is_corrected_by_what_users_said(tmp_path: Path) -> None:
    _, quality = write(tmp_path / "l.sqlite", seed=1, num=1_500, bias=0.3)
    other = what_if(tmp_path / "l.sqlite", make_deployment(), [GOAL]).outlooks[1]
    assert other.feedback is not None
    assert other.expected_quality > quality + 0.25
    assert other.feedback.low <= quality <= other.feedback.high


def test_as_it_was_is_the_plain_mean(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    write(path, seed=2)
    found = what_if(path, make_deployment(), [GOAL])
    connection = sqlite3.connect(path)
    usd, score, count = connection.execute(
        "SELECT avg(usd), avg(score), count(*) FROM results JOIN feedback USING (decision_id)"
    ).fetchone()
    connection.close()
    assert found.num_requests == found.num_scored == count
    before, other = found.outlooks
    assert before.usd.mean == pytest.approx(usd)
    assert before.feedback is not None
    assert before.feedback.mean == pytest.approx(score)
    assert (before.changed, before.support) == (0.0, 1.0)
    assert other.changed == pytest.approx(0.3, abs=0.08)


def test_a_log_without_chance_says_where_it_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    write(path, seed=3, chance=0.0)
    same, cheap = what_if(path, make_deployment(), [GOAL, Goal(usd_per_quality=1e-9)]).outlooks[1:]
    assert (same.support, same.changed) == (1.0, 0.0)
    assert same.feedback_weighed is not None
    assert cheap.support < 0.5
    assert cheap.feedback_weighed is None
    assert cheap.usd.mean < same.usd.mean


def test_no_spend_below_nothing_and_no_score_beyond_its_range(tmp_path: Path) -> None:
    """A few rows of great weight: the router expected too much of all, and one dear answer came by chance."""
    path = tmp_path / "l.sqlite"
    scores = json.dumps({"small": (0.9, 1e-3), "large": (0.1, 2e-3)})
    rows: list[msgspec.Struct] = []
    for number in range(20):
        name, propensity = ("small", 0.05) if number < 3 else ("large", 0.95)
        row = {"chosen": name, "propensity": propensity, "scores": scores}
        rows += [
            decision(number, time_s=time.time() - 60.0, **row),
            result(number, served=name, usd=1e-6),
            score(number, 1.0),
        ]
    write_rows(path, rows)
    other = what_if(path, make_deployment(), [Goal(usd_per_quality=1e-9)]).outlooks[1]
    assert other.usd.mean == other.usd.low == 0.0
    for value in (other.feedback, other.feedback_weighed):
        assert value is not None
        assert 0.0 <= value.low <= value.mean <= value.high <= 1.0


def test_a_ledger_with_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "empty.sqlite", seed=0, num=0)
    with pytest.raises(InputError, match="no request to learn from"):
        what_if(tmp_path / "empty.sqlite", make_deployment(), [GOAL])
    (tmp_path / "not.sqlite").write_bytes(b"not a ledger")
    with pytest.raises(InputError, match="cannot be read as a ledger"):
        what_if(tmp_path / "not.sqlite", make_deployment(), [GOAL])
    write(tmp_path / "l.sqlite", seed=0, num=5)
    with pytest.raises(InputError, match="no request"):
        what_if(tmp_path / "l.sqlite", make_deployment(), [GOAL], since_s=time.time())


def test_the_command_prints_a_line_for_each_dial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from turnout.datasets import synthetic
    from turnout.training import train

    table = synthetic(num_queries=200, seed=3).table.select(split="train")
    save(train(table, Goal(), router="knn"), tmp_path / "fitted")
    write(tmp_path / "turnout.sqlite", seed=4, num=50)
    config = tmp_path / "turnout.toml"
    config.write_text(
        'deployment = "fitted"\n[providers.main]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n',
        encoding="utf-8",
    )
    dials = ["--dial", "usd-per-quality=0.002", "--dial", "usd-per-quality=0.1"]
    assert main(["whatif", str(config), *dials]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "50 requests, 50 of them with feedback"
    assert [line.split("  ")[0] for line in lines[2:5]] == [
        "as it was",
        "0.002 usd for one more right answer",
        "0.1 usd for one more right answer",
    ]
    assert main(["whatif", str(config), "--dial", "floor=1"]) == 1
    assert "--dial is wrong" in capsys.readouterr().err
    assert main(["whatif", str(config), *dials, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_requests"] == 50


def test_the_rule_is_that_of_the_policy() -> None:
    """The choice from stored scores is what `Best` makes of the same numbers."""
    from turnout.core.budget import Budget
    from turnout.core.estimate import make_estimate
    from turnout.core.rng import make_rng
    from turnout.gateway.whatif import _best

    rng = np.random.default_rng(0)
    deployment = make_deployment()
    for price in (0.0, 10.0, 1e4, np.inf):
        quality_QM, usd_QM = rng.uniform(size=(50, 2)).round(1), rng.uniform(1e-5, 1e-3, (50, 2)).round(4)
        estimate = make_estimate(deployment.candidates, quality_QM, cost_usd_QM=usd_QM)
        expected = Best().decide(estimate, Budget(price=price), make_rng(0)).names_Q
        for row in range(50):
            scores = {
                name: (float(quality_QM[row, column]), float(usd_QM[row, column]))
                for column, name in enumerate(estimate.names)
            }
            assert _best(scores, price) == expected[row]
