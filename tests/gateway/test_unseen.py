"""Who was asked and gave no answer may charge all the same: the row says so, and the budget agrees."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.client import call, row, rows
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, SECRET, SMALL_USD, ask_as, hashed, make
from tests.gateway.upstream import Upstream
from turnout.gateway.config import Config, RoutingSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import KeySettings

PROMPT = "x " * 2000
ASKED: Any = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 100}
LARGE_PROMPT_USD, SMALL_PROMPT_USD = 1000 * 1.0 / 1e6, 1000 * 0.1 / 1e6


def config_of(upstream: Upstream, folder: Path, **changes: Any) -> Config:
    """Return settings with one key, and a short patience."""
    plain = make(upstream, folder, team=KeySettings(sha256=hashed(), budget_usd=1.0, is_admin=True))
    providers = make_config(upstream.base_url, folder / "l.sqlite", first_byte_s=0.2).providers
    routing = RoutingSettings(retries=0, **changes)
    return msgspec.structs.replace(plain, providers=providers, routing=routing)


def spent(folder: Path) -> float:
    """Return what the budget has counted."""
    with closing(sqlite3.connect(folder / "keys.sqlite")) as connection:
        (usd, held) = connection.execute("SELECT sum(spent_usd), sum(held_usd) FROM spend").fetchone()
    assert held == pytest.approx(0.0, abs=1e-12)
    return float(usd)


@pytest.mark.parametrize("how", ["slow", "hangs up", "garbage"])
def test_a_call_that_was_replaced_is_charged_for_its_prompt(
    upstream: Upstream, tmp_path: Path, how: str
) -> None:
    upstream.behave["large"] = how
    with running(config_of(upstream, tmp_path), deployment=make_deployment()) as ready:
        answer = ask_as(ready, **ASKED)
        assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small")
        assert answer.headers["x-turnout-usage-estimated"] == "true"
    found = row(tmp_path / "l.sqlite", answer.decision_id)
    assert found["usage_estimated"] == 1
    assert (found["input_tokens"], found["output_tokens"]) == (11, 7)
    assert found["usd"] == pytest.approx(SMALL_USD + LARGE_PROMPT_USD)
    assert spent(tmp_path) == pytest.approx(found["usd"])


def test_a_refusal_that_was_replaced_costs_nothing(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["large"] = "500"
    with running(config_of(upstream, tmp_path), deployment=make_deployment()) as ready:
        answer = ask_as(ready, **ASKED)
    found = row(tmp_path / "l.sqlite", answer.decision_id)
    assert (found["usage_estimated"], found["usd"]) == (0, pytest.approx(SMALL_USD))
    assert spent(tmp_path) == pytest.approx(SMALL_USD)


def test_where_nobody_answers_in_time_row_and_budget_agree(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave = {"large": "slow", "small": "slow"}
    with running(config_of(upstream, tmp_path), deployment=make_deployment()) as ready:
        answer = ask_as(ready, **ASKED)
        assert answer.status == 504
        counted = call(ready.base_url.removesuffix("/v1"), "/metrics", headers=HEADERS_OF).body.decode()
    found = row(tmp_path / "l.sqlite", answer.decision_id)
    assert (found["served"], found["usage_estimated"]) == (None, 1)
    assert found["usd"] == pytest.approx(LARGE_PROMPT_USD + SMALL_PROMPT_USD)
    assert spent(tmp_path) == pytest.approx(found["usd"])
    (line,) = [line for line in counted.splitlines() if line.startswith("turnout_spend_usd_total{")]
    assert float(line.rpartition(" ")[2]) == pytest.approx(found["usd"])


def test_who_leaves_before_the_answer_is_charged_the_same_in_row_and_budget(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["small"] = "slow"
    config = config_of(upstream, tmp_path)
    patient = make_config(upstream.base_url, tmp_path / "l.sqlite").providers
    config = msgspec.structs.replace(config, providers=patient)
    with running(config, deployment=make_deployment()) as ready:
        with (
            openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0, timeout=0.2) as client,
            pytest.raises(openai.APITimeoutError),
        ):
            client.chat.completions.create(model="small", **ASKED)
        assert upstream.last.gone.wait(2)
        threading.Event().wait(0.05)
    (found,) = rows(tmp_path / "l.sqlite")
    assert (found["status"], found["usage_estimated"]) == (499, 1)
    assert found["usd"] == pytest.approx(SMALL_PROMPT_USD)
    assert spent(tmp_path) == pytest.approx(found["usd"])
