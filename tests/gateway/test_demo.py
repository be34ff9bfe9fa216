"""The demo's way: an artifact from the disk, the bundled table replayed, the official client."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from turnout.core import ConfigError, Goal
from turnout.core.artifact import save
from turnout.datasets import load
from turnout.datasets.loading import find_table
from turnout.gateway import build_app, demo_config, running
from turnout.policies import Best, Deployment
from turnout.routers.best_single import BestSingleRouter


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(Best(), tmp_path / "policy")
    with pytest.raises(ConfigError, match="not a deployment"):
        build_app(demo_config(tmp_path / "policy", find_table("reason18")))


def test_a_saved_deployment_replays_the_bundled_table(tmp_path: Path) -> None:
    table = load("reason18")
    router = BestSingleRouter().fit(table.select(split="train"))
    fitted = Deployment(router=router, fallback=router, policy=Best(), goal=Goal())
    save(fitted, tmp_path / "deployment")
    best = fitted.decide(table.queries[:1]).names_Q[0]
    answers = zip(table.query_index, table.candidate_index, table.extras["answer"], strict=True)
    query, answer = next((q, a) for q, m, a in answers if table.names[m] == best and a is not None)
    config = demo_config(
        tmp_path / "deployment", find_table("reason18"), port=0, ledger=tmp_path / "l.sqlite"
    )
    with (
        running(config) as ready,
        openai.OpenAI(base_url=ready.base_url, api_key="none", max_retries=0) as client,
    ):
        text = table.queries[query].words
        made = client.chat.completions.create(
            model="turnout/auto", messages=[{"role": "user", "content": text}]
        )
    assert made.choices[0].message.content == answer
    assert made.model == best
