"""Prices from a file with a date count wherever money is counted, and say when they are old."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.client import ask, call, check_advice, row
from tests.gateway.pool import ADAPTED, LARGE, SMALL, THINKING, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, hashed
from tests.gateway.upstream import Upstream
from turnout.core import ConfigError
from turnout.gateway.app import build_app
from turnout.gateway.config import Config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_prices import PricesSettings

POOL = (SMALL, LARGE, THINKING, ADAPTED)


def write(folder: Path, models: dict[str, dict], age_days: float = 1.0) -> Path:
    path = folder / "prices.json"
    day = (datetime.now(UTC) - timedelta(days=age_days)).date()
    path.write_text(json.dumps({"date": str(day), "models": models, "source": "the providers' pages"}))
    return path


def config_of(upstream: Upstream, folder: Path, path: Path) -> Config:
    config = make_config(upstream.base_url, folder / "l.sqlite")
    return msgspec.structs.replace(config, prices=PricesSettings(path=str(path)))


def card(input_usd: float, output_usd: float) -> dict:
    return {"input_usd_per_mtok": input_usd, "output_usd_per_mtok": output_usd}


def said(name: str, one: dict) -> str:
    return json.dumps({"date": "2026-11-01", "models": {name: one}})


def test_the_file_stands_in_the_place_of_the_deployments_cards(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path, {"small": card(100.0, 200.0), "large": card(300.0, 400.0)})
    with running(config_of(upstream, tmp_path, path), deployment=make_deployment(POOL)) as ready:
        assert ready.notices == ()
        found = {
            model: row(tmp_path / "l.sqlite", ask(ready.base_url, model=model).decision_id)["usd"]
            for model in ("small", "large", THINKING.name, ADAPTED.name)
        }
    assert found["small"] == pytest.approx((11 * 100 + 7 * 200) / 1e6)
    assert found["large"] == pytest.approx((11 * 300 + 7 * 400) / 1e6)
    # A model's card holds for its efforts and adapters too, the one without a card of its own among them.
    assert found[THINKING.name] == found["large"]
    assert found[ADAPTED.name] == found["small"]


def test_prices_of_a_day_to_come_are_noticed(upstream: Upstream, tmp_path: Path) -> None:
    config = config_of(upstream, tmp_path, write(tmp_path, {"small": card(1.0, 2.0)}, age_days=-30.0))
    with running(config, deployment=make_deployment(POOL)) as ready:
        assert "a day to come" in " ".join(ready.notices)
    tomorrow = config_of(upstream, tmp_path, write(tmp_path, {"small": card(1.0, 2.0)}, age_days=-1.0))
    with running(tomorrow, deployment=make_deployment(POOL)) as ready:
        assert ready.notices == ()


def test_a_candidates_own_name_comes_first_and_the_rest_keep_their_cards(
    upstream: Upstream, tmp_path: Path
) -> None:
    path = write(tmp_path, {"large": card(300.0, 400.0), THINKING.name: card(1.0, 2.0)})
    with running(config_of(upstream, tmp_path, path), deployment=make_deployment(POOL)) as ready:
        thinking = row(tmp_path / "l.sqlite", ask(ready.base_url, model=THINKING.name).decision_id)
        small = row(tmp_path / "l.sqlite", ask(ready.base_url, model="small").decision_id)
    assert thinking["usd"] == pytest.approx((11 * 1 + 7 * 2) / 1e6)
    assert small["usd"] == pytest.approx((11 * 0.1 + 7 * 0.4) / 1e6)


def test_budgets_are_kept_by_the_file(upstream: Upstream, tmp_path: Path) -> None:
    config = config_of(upstream, tmp_path, write(tmp_path, {"small": card(100.0, 200.0)}))
    keys = {"team": KeySettings(sha256=hashed(), budget_usd=(20 * 100 + 8 * 200) / 1e6 * 1.5)}
    auth = AuthSettings(path=str(tmp_path / "k.sqlite"))
    config = msgspec.structs.replace(config, keys=keys, auth=auth)
    with running(config, deployment=make_deployment(POOL)) as ready:
        assert ask(ready.base_url, model="small", max_tokens=8, headers=HEADERS_OF).status == 200
        assert ask(ready.base_url, model="small", max_tokens=8, headers=HEADERS_OF).status == 429


def test_old_prices_are_said_at_the_start_and_in_the_metrics(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path, {"small": card(1.0, 2.0)}, 100.0)
    with running(config_of(upstream, tmp_path, path), deployment=make_deployment(POOL)) as ready:
        (notice,) = ready.notices
        text = call(ready.base_url.removesuffix("/v1"), "/metrics").body.decode()
    assert "100 days old" in notice
    (age,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "turnout_price_age_days"
    ]
    assert 100 <= age < 102


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("no json", "cannot be read"),
        ('{"models": {}}', "date"),
        ('{"date": "yesterday", "models": {}}', "cannot be read"),
        (said("smal", card(1.0, 1.0)), "did you mean 'small'"),
        (said("small", card(-1.0, 1.0)), ">= 0"),
        ('{"date": "2026-11-01", "models": {"small": {"input": 1}}}', "cannot be read"),
    ],
)
def test_a_wrong_file_stops_the_start_with_a_sentence(
    upstream: Upstream, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "prices.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        build_app(config_of(upstream, tmp_path, path), deployment=make_deployment(POOL))
    check_advice(str(caught.value))
