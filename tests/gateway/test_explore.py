"""Chance in the choice, with true propensities, and a deployment that is learned from what it brought."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.gateway.client import ask, call
from tests.gateway.fitted import fitted
from tests.gateway.pool import LARGE, SMALL, THINKING, make_deployment
from tests.gateway.scripted import scripted_server
from turnout.cli.main import main
from turnout.core import Candidate, PriceCard
from turnout.core.artifact import load, save
from turnout.core.rng import make_rng
from turnout.gateway.config import load_config
from turnout.gateway.lifecycle import running
from turnout.gateway.select import Selector
from turnout.gateway.wire import parse_chat
from turnout.policies import Deployment

BODY = json.dumps({"model": "turnout/auto", "messages": [{"role": "user", "content": "hard"}]}).encode()


def selector(share: float) -> Selector:
    deployment = make_deployment((SMALL, LARGE, THINKING))
    return Selector(
        deployment=deployment, alias="turnout/auto", goal=None, rng=make_rng(3, "test"), explore_share=share
    )


def test_the_propensity_of_every_choice_is_how_often_it_is_made() -> None:
    chooser, request = selector(0.3), parse_chat(BODY)
    seen: Counter[str] = Counter()
    told: dict[str, set[float]] = {}
    reasons: dict[str, set[str]] = {}
    for number in range(4000):
        found = chooser.choose(request, request.query(str(number)), None)
        name = found.ranked[0].name
        seen[name] += 1
        told.setdefault(name, set()).add(round(found.propensity, 12))
        reasons.setdefault(name, set()).add(found.reason)
        assert len({one.name for one in found.ranked}) == 3
    assert len(told) == 3
    for name, (propensity, *more) in ((name, sorted(values)) for name, values in told.items()):
        assert not more
        error = np.sqrt(propensity * (1 - propensity) / 4000)
        assert abs(seen[name] / 4000 - propensity) < 4 * error
    assert sum(next(iter(values)) for values in told.values()) == pytest.approx(1.0)
    own = THINKING.name
    assert "explored" not in reasons[own]
    assert all(reasons[name] == {"explored"} for name in told if name != own)


def test_nothing_is_drawn_where_it_is_off_named_or_only_looked_at() -> None:
    request = parse_chat(BODY)
    assert {selector(0.0).choose(request, request.query("1"), None).propensity} == {1.0}
    named = parse_chat(BODY.replace(b"turnout/auto", b"small"))
    assert selector(1.0).choose(named, named.query("1"), None).reason == "named"
    looked = selector(1.0)
    for number in range(20):
        found = looked.choose(request, request.query("1"), None, None, make_rng(number, "x"))
        assert (found.ranked[0].name, found.propensity) == (THINKING.name, 1.0)


def retrain_without_and_with_prices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was served while nobody knew a price is charged by the prices of the settings."""
    save(fitted(pool=(Candidate(model="large"), Candidate(model="small"))), folder / "bare")
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE results SET usd = NULL")
    config = folder / "turnout.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('"fitted"', '"bare"'), encoding="utf-8")
    terms = ["--router", "ridge", "--min-scored", "100", "--usd-per-quality", "1", "--json"]
    command = ["retrain", str(config), *terms, "--out", str(folder / "priced")]
    assert main(command) == 1
    assert "name the prices in the settings (prices.path)" in capsys.readouterr().err
    card = {"input_usd_per_mtok": 7.0, "output_usd_per_mtok": 9.0}
    prices = {"date": "2026-11-01", "models": {"large": card, "small": card}}
    (folder / "prices.json").write_text(json.dumps(prices), encoding="utf-8")
    with config.open("a", encoding="utf-8") as file:
        file.write('\n[prices]\npath = "prices.json"\n')
    assert main(command) == 0
    learned = load(folder / "priced")
    assert isinstance(learned, Deployment)
    assert {candidate.price_card for candidate in learned.candidates} == {PriceCard(**card)}
    capsys.readouterr()


def test_a_gateway_explores_and_a_deployment_is_learned_from_its_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(fitted(), tmp_path / "fitted")
    config = tmp_path / "turnout.toml"
    with scripted_server() as server:
        server.say = {"large": lambda _: "well", "small": lambda _: "hm"}
        config.write_text(
            f"""
            deployment = "fitted"
            [server]
            port = 0
            [routing]
            explore_share = 0.6
            [ledger]
            path = "ledger.sqlite"
            keep_text = true
            [providers.main]
            kind = "openai"
            base_url = "{server.base_url}"
            """,
            encoding="utf-8",
        )
        with running(load_config(config)) as ready:
            for number in range(150):
                text = f"{'hello' if number % 2 else 'prove'} {number}"
                message = [{"role": "user", "content": text}]
                answer = ask(ready.base_url, {"model": "turnout/auto", "messages": message})
                said = json.loads(answer.body)["choices"][0]["message"]["content"]
                score = 1.0 if said == "well" or number % 2 else 0.0
                body = {"decision_id": answer.decision_id, "score": score}
                sent = call(ready.base_url, "/feedback", method="POST", body=json.dumps(body).encode())
                assert sent.status == 200
    retrain = ["retrain", str(config), "--out", str(tmp_path / "new"), "--router", "ridge"]
    assert main([*retrain, "--json"]) == 1
    assert "at least 200 requests" in capsys.readouterr().err
    assert main([*retrain, "--min-scored", "100", "--usd-per-quality", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["log"]["scored"], told["log"]["by_chance"]) == (150, 150)
    assert told["best_single"] == "large"
    learned = load(tmp_path / "new")
    assert isinstance(learned, Deployment)
    assert [candidate.price_card for candidate in learned.candidates] == [LARGE.price_card, SMALL.price_card]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        reasons = dict(connection.execute("SELECT reason, count(*) FROM decisions GROUP BY reason"))
    connection.close()
    assert 25 < reasons["explored"] < 70
    assert main([*retrain, "--router", "ridge,knn", "--out", str(tmp_path / "x")]) == 1
    assert "--router names several" in capsys.readouterr().err
    retrain_without_and_with_prices(tmp_path, capsys)
