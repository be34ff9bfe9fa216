"""A spend cap is kept on the traffic that comes, not only on the traffic that was calibrated."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import openai
import pytest

from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import Goal, make_rng
from turnout.datasets import synthetic
from turnout.gateway.lifecycle import running
from turnout.gateway.pacers import MAX_PACERS, Pacers
from turnout.gateway.select import Selector
from turnout.gateway.wire import parse_chat
from turnout.policies import Deployment
from turnout.training import train

WORLD = synthetic(num_queries=1200, seed=11)
CAP = Goal(usd_per_1k=1000 * float(np.median(WORLD.cost_usd_QM.mean(axis=0))))


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    trained = train(WORLD.table.select(split="train"), CAP, router="knn")
    assert trained.plan().is_open
    return trained


def spend(deployment: Deployment, *, pace: bool, factor: float) -> float:
    """Return mean usd of the later half when every answer costs `factor` times what was expected."""
    selector = Selector(deployment=deployment, alias="turnout/auto", goal=None, rng=make_rng(0), pace=pace)
    paid = []
    for query in WORLD.table.queries[:800]:
        body = b'{"model": "turnout/auto", "messages": [{"role": "user", "content": "x"}]}'
        selection = selector.choose(parse_chat(body), query, None)
        paid.append(selection.expected_cost_usd * factor)
        if selection.pacer is not None:
            selection.pacer.observe(paid[-1])
    return float(np.mean(paid[400:]))


def test_answers_dearer_than_calibrated_break_the_cap_unless_it_is_paced(deployment: Deployment) -> None:
    cap_usd = (CAP.usd_per_1k or 0.0) / 1000.0
    assert spend(deployment, pace=False, factor=2.0) > 1.3 * cap_usd
    assert spend(deployment, pace=True, factor=2.0) == pytest.approx(cap_usd, rel=0.15)


def test_only_a_cap_that_a_router_serves_is_paced(deployment: Deployment) -> None:
    pacers = Pacers(deployment=deployment, is_on=True)
    assert pacers.get(None) is pacers.get(CAP)
    assert pacers.get(Goal()) is None
    assert Pacers(deployment=deployment, is_on=False).get(CAP) is None


def test_ever_new_caps_do_not_fill_the_memory(deployment: Deployment) -> None:
    pacers = Pacers(deployment=deployment, is_on=True)
    made = [pacers.get(Goal(usd_per_1k=CAP.usd_per_1k * (1 + i / 1000))) for i in range(2 * MAX_PACERS)]  # type: ignore[operator]
    assert sum(pacer is not None for pacer in made) <= MAX_PACERS


def test_each_answer_of_a_served_request_moves_the_price(
    deployment: Deployment, upstream: Upstream, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with running(make_config(upstream.base_url, ledger), deployment=deployment) as ready:
        for text in ("a first question", "a second question"):
            with openai.OpenAI(base_url=ready.base_url, api_key="none") as client:
                client.chat.completions.create(
                    model="turnout/auto", messages=[{"role": "user", "content": text}]
                )
    with sqlite3.connect(ledger) as rows:
        prices = [row[0] for row in rows.execute("SELECT price FROM requests ORDER BY time_s")]
    rows.close()
    assert prices[0] == pytest.approx(deployment.plan().price)
    assert prices[1] != prices[0]
