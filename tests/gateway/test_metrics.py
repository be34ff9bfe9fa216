"""What /metrics says is read by Prometheus' own parser and equals what the ledger holds."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.client import ask, call, row, rows
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.config import BreakerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.metrics import BOUNDS_S, MAX_SERIES, Tally
from turnout.gateway.metrics_text import render

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """Return every sample by its name and its sorted labels; a sample that comes twice is an error."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def scraped(base_url: str) -> Samples:
    answer = call(base_url.removesuffix("/v1"), "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.body.decode())


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value
        for (sample, pairs), value in samples.items()
        if sample == name and labels.items() <= dict(pairs).items()
    )


def test_the_numbers_equal_those_of_the_ledger(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with running(make_config(upstream.base_url, path), deployment=make_deployment()) as ready:
        for number in range(6):
            ask(ready.base_url, model=("small", "large", "turnout/auto")[number % 3], stream=number > 3)
        ask(ready.base_url, model="nobody")
        ask(ready.base_url, b"no json")
        upstream.behave["large"] = "500"
        last = ask(ready.base_url)
        assert last.headers["x-turnout-chosen"] == "large"
        row(path, last.decision_id)
        samples = scraped(ready.base_url)
        found = rows(path)
    for status in {entry["status"] for entry in found}:
        counted = total(samples, "turnout_requests_total", status=str(status))
        assert counted == sum(entry["status"] == status for entry in found)
    for model in ("small", "large"):
        mine = [entry for entry in found if entry["served"] == model]
        assert total(samples, "turnout_requests_total", model=model) == len(mine)
        for direction in ("input", "output"):
            tokens = sum(entry[f"{direction}_tokens"] for entry in mine)
            assert total(samples, "turnout_tokens_total", model=model, direction=direction) == tokens
        spent = total(samples, "turnout_spend_usd_total", model=model, replayed="false")
        assert spent == pytest.approx(sum(entry["usd"] for entry in mine))
        seconds = total(samples, "turnout_request_seconds_sum", model=model)
        assert seconds == pytest.approx(sum(entry["latency_s"] for entry in mine))
        assert total(samples, "turnout_request_seconds_count", model=model) == len(mine)
    assert total(samples, "turnout_errors_total", error="model_not_found") == 1
    assert total(samples, "turnout_errors_total", error="invalid_json") == 1
    assert total(samples, "turnout_fallbacks_total", chosen="large", served="small") == 1
    assert total(samples, "turnout_faults_total", who="large", fault="upstream_error") == 1
    assert total(samples, "turnout_calls_total") == sum(entry["attempts"] for entry in found)
    assert total(samples, "turnout_ledger_up") == 1


def test_gauges_say_what_is_so_now(upstream: Upstream, tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        make_config(upstream.base_url, tmp_path / "l.sqlite"), breakers=BreakerSettings(failures=1)
    )
    with running(config, deployment=make_deployment()) as ready:
        before = scraped(ready.base_url)
        upstream.behave["small"] = "500"
        ask(ready.base_url, model="small")
        after = scraped(ready.base_url)
    assert total(before, "turnout_breaker_state", model="small") == 0
    assert total(after, "turnout_breaker_state", model="small", provider="main") == 2
    assert 0 < total(after, "turnout_breaker_wait_seconds", model="small") <= 5
    assert total(after, "turnout_running") == 0
    assert total(before, "turnout_calls_total") == 0


def test_buckets_hold_what_is_at_most_their_end() -> None:
    tally = Tally()
    times = [0.0, 0.0005, 0.00051, 0.7, 120.0, 999.0]
    for seconds in times:
        tally.time("turnout_decision_seconds", (), seconds)
    samples = parsed(render(tally, []).decode())
    for bound in (*BOUNDS_S, math.inf):
        end = "+Inf" if math.isinf(bound) else f"{bound:g}"
        counted = total(samples, "turnout_decision_seconds_bucket", le=end)
        assert counted == sum(seconds <= bound for seconds in times)
    assert total(samples, "turnout_decision_seconds_sum") == pytest.approx(sum(times))


def test_odd_labels_are_escaped() -> None:
    tally = Tally()
    odd = 'a "quoted" \\ name\nin two lines'
    tally.count("turnout_errors", (odd,))
    assert total(parsed(render(tally, []).decode()), "turnout_errors_total", error=odd) == 1


def test_series_are_bounded_and_lose_no_count() -> None:
    tally = Tally()
    for number in range(3 * MAX_SERIES):
        tally.count("turnout_errors", (f"error {number}",))
        tally.time("turnout_request_seconds", (f"model {number}",), 1.0)
    assert len(tally.counters["turnout_errors"]) == MAX_SERIES + 1
    assert len(tally.histograms["turnout_request_seconds"]) == MAX_SERIES + 1
    samples = parsed(render(tally, []).decode())
    assert total(samples, "turnout_errors_total") == 3 * MAX_SERIES
    assert total(samples, "turnout_request_seconds_count") == 3 * MAX_SERIES


def test_tallies_add_up_and_can_be_written_down() -> None:
    def tally(model: str) -> Tally:
        made = Tally()
        made.count("turnout_tokens", (model, "input"), 3)
        made.time("turnout_request_seconds", (model,), 0.2)
        return made

    one: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(tally("a")), type=Tally)
    one.add(tally("a"))
    one.add(tally("b"))
    samples = parsed(render(one, []).decode())
    assert total(samples, "turnout_tokens_total", model="a") == 6
    assert total(samples, "turnout_tokens_total") == 9
    assert total(samples, "turnout_request_seconds_count", model="a") == 2
    assert total(samples, "turnout_request_seconds_sum") == pytest.approx(0.6)


def test_a_scrape_is_no_request_of_the_ledger(upstream: Upstream, tmp_path: Path) -> None:
    with running(
        make_config(upstream.base_url, tmp_path / "l.sqlite"), deployment=make_deployment()
    ) as ready:
        scraped(ready.base_url)
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (0,)
    connection.close()
