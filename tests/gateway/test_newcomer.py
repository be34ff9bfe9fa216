"""A gateway serves a deployment that a model joined after it was calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.gateway.client import ask, call
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import Goal
from turnout.core.artifact import load, save
from turnout.datasets import synthetic
from turnout.gateway.lifecycle import running
from turnout.policies import Deployment
from turnout.training import train


def test_a_newcomer_is_listed_served_by_name_and_not_chosen_unproven(
    upstream: Upstream, tmp_path: Path
) -> None:
    table = synthetic(num_queries=400, seed=3).table.select(split="train")
    *others, newcomer = table.names
    old = train(table.select(candidates=others), Goal(), router="knn")
    probe = table.select(candidates=[newcomer]).where(np.arange(len(table.queries)) < 20)
    save(old.add_candidate(probe.candidates[0], probe), tmp_path / "grown")
    grown = load(tmp_path / "grown")
    assert isinstance(grown, Deployment)
    config = make_config(upstream.base_url, tmp_path / "ledger.sqlite")
    with running(config, deployment=grown) as ready:
        listed = call(ready.base_url, "/models").json["data"]
        assert newcomer in [model["id"] for model in listed]
        assert ask(ready.base_url, model=newcomer).status == 200
        answer = ask(ready.base_url)
        assert answer.status == 200
    asked = table.queries[:100]
    assert newcomer not in grown.decide(asked).names_Q
