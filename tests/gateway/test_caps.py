"""A spend cap that nobody can keep is refused by name, or said at the start; never broken in silence."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.gateway.client import ask, check_advice, row
from tests.gateway.conftest import Served
from tests.gateway.settings import make_config
from tests.gateway.test_whatif import write
from tests.gateway.upstream import Upstream
from turnout.core import Goal, OutcomeTable
from turnout.core.errors import InputError
from turnout.datasets import synthetic
from turnout.evaluation.baselines import best_single
from turnout.gateway.caps import least_usd_per_1k, unkept
from turnout.gateway.lifecycle import running
from turnout.gateway.settings import GoalSettings
from turnout.gateway.whatif import what_if
from turnout.policies import Deployment
from turnout.training import train

CAP = "x-turnout-usd-per-1k"


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return train(synthetic(num_queries=400, seed=3).table.select(split="train"), Goal(), router="knn")


@pytest.fixture(scope="module")
def served(
    deployment: Deployment, one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("caps") / "ledger.sqlite"
    with running(make_config(one_upstream.base_url, ledger), deployment=deployment) as ready:
        assert ready.notices == ()
        yield Served(ready.base_url, ledger)


def test_costs_that_were_learned_and_cannot_be_charged_are_said_at_the_start(
    one_upstream: Upstream, tmp_path: Path
) -> None:
    table = synthetic(num_queries=400, seed=3).table.select(split="train")
    bare = [dataclasses.replace(candidate, price_card=None) for candidate in table.candidates]
    recorded = OutcomeTable(
        queries=table.queries,
        candidates=bare,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
    )
    learned = train(recorded, Goal(), router="knn")
    with running(make_config(one_upstream.base_url, tmp_path / "l.sqlite"), deployment=learned) as ready:
        (notice,) = ready.notices
    assert repr(bare[0].name) in notice
    assert "prices.path" in notice


def test_a_cap_below_the_cheapest_is_a_422_that_says_what_the_cheapest_costs(
    served: Served, deployment: Deployment, upstream: Upstream
) -> None:
    least = least_usd_per_1k(deployment)
    assert least is not None
    answer = ask(served.base_url, headers={CAP: "0.00000001"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (422, "budget_too_small", CAP)
    check_advice(answer.error["message"])
    named = re.search(r"at least (\S+) usd per 1,000 requests", answer.error["message"])
    assert named is not None
    assert float(named.group(1)) == pytest.approx(least[1], rel=2e-3)
    assert row(served.ledger, answer.decision_id)["error"] == "budget_too_small"
    assert upstream.seen == []
    assert ask(served.base_url, headers={CAP: named.group(1)}).status == 200


def test_what_if_prices_no_cap_that_the_gateway_refuses(deployment: Deployment, tmp_path: Path) -> None:
    write(tmp_path / "l.sqlite", seed=5, num=20)
    least = least_usd_per_1k(deployment)
    assert least is not None
    goals = [Goal(usd_per_1k=least[1] * 1.0001), Goal(usd_per_1k=1e-8)]
    with pytest.raises(InputError, match="a gateway would refuse this dial") as caught:
        what_if(tmp_path / "l.sqlite", deployment, goals)
    check_advice(str(caught.value))
    assert len(what_if(tmp_path / "l.sqlite", deployment, goals[:1]).outlooks) == 2


def test_a_cap_of_the_cheapest_itself_is_served(served: Served, deployment: Deployment) -> None:
    least = least_usd_per_1k(deployment)
    assert least is not None
    assert not deployment.plan(Goal(usd_per_1k=least[1] * 1.0001)).is_kept
    for factor in (1.0001, 10.0):
        assert ask(served.base_url, headers={CAP: f"{least[1] * factor:.12f}"}).status == 200


def test_a_goal_of_the_file_that_cannot_be_kept_is_said_at_the_start(
    deployment: Deployment, one_upstream: Upstream, tmp_path: Path
) -> None:
    plain = make_config(one_upstream.base_url, tmp_path / "ledger.sqlite")
    config = msgspec.structs.replace(plain, goal=GoalSettings(usd_per_1k=1e-8))
    with running(config, deployment=deployment) as ready:
        (notice,) = ready.notices
        assert "1e-08 usd per 1,000" in notice
        assert "cannot be promised" in notice
        assert ask(ready.base_url).status == 200
    assert unkept(deployment, Goal(usd_per_1k=1e9)) == ()


def test_a_cap_is_not_served_by_the_one_whose_cost_is_unknown(one_upstream: Upstream, tmp_path: Path) -> None:
    table = synthetic(num_queries=400, num_candidates=2, seed=3).table.select(split="train")
    best = best_single(table)
    is_best_N = np.array(table.names)[table.candidate_index] == best
    unpriced = OutcomeTable(
        queries=table.queries,
        candidates=[candidate.with_price_card(None) for candidate in table.candidates],
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=np.where(is_best_N, np.nan, table.cost_usd),
    )
    deployment = train(unpriced, Goal(), router="best_single")
    ledger = tmp_path / "ledger.sqlite"
    with running(make_config(one_upstream.base_url, ledger), deployment=deployment) as ready:
        free, capped = ask(ready.base_url), ask(ready.base_url, headers={CAP: "1000"})
        assert (free.status, capped.status) == (200, 200)
        assert row(ledger, free.decision_id)["chosen"] == best
        assert row(ledger, capped.decision_id)["chosen"] not in (None, best)
