"""Retries, breakers, hedging and shedding, through a real gateway before a real upstream."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.gateway.client import Answer, ask, call, row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.config import BreakerSettings, RoutingSettings, ServerSettings
from turnout.gateway.lifecycle import Ready, running

EASY: Any = [{"role": "user", "content": "an easy one"}]
NAMED: Any = {"model": "small", "messages": EASY}


@contextmanager
def stand(upstream: Upstream, ledger: Path, **sections: Any) -> Iterator[Ready]:
    plain = make_config(upstream.base_url, ledger, first_byte_s=5.0)
    with running(msgspec.structs.replace(plain, **sections), deployment=make_deployment()) as ready:
        yield ready


def states(ready: Ready) -> dict[str, str]:
    found = call(ready.base_url.removesuffix("/v1"), "/admin/breakers").json["breakers"]
    return {breaker["model"]: breaker["state"] for breaker in found}


def test_a_failure_that_passes_is_tried_again_and_answered(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script["small"] = ["500", "hangs up"]
    routing = RoutingSettings(retries=2, retry_wait_s=0.01)
    with stand(upstream, tmp_path / "l.sqlite", routing=routing) as ready:
        answer = ask(ready.base_url, NAMED)
    # The provider itself tries a connection that was closed once more, at once.
    assert (answer.status, answer.headers["x-turnout-attempts"], len(upstream.seen)) == (200, "2", 3)
    found = row(tmp_path / "l.sqlite", answer.decision_id)
    assert (found["status"], found["faults"]) == (200, "small: upstream_error")


def test_retries_end_and_tell_the_client_not_to_try_itself(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "500"
    routing = RoutingSettings(retries=2, retry_wait_s=0.01)
    with stand(upstream, tmp_path / "l.sqlite", routing=routing) as ready:
        answer = ask(ready.base_url, NAMED)
    assert (answer.status, answer.headers["x-should-retry"], len(upstream.seen)) == (502, "false", 3)


def test_an_outage_is_not_answered_with_more_load(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "500"
    routing = RoutingSettings(retries=5, retry_wait_s=0.001, retry_share=0.1)
    with stand(upstream, tmp_path / "l.sqlite", routing=routing) as ready:
        for _ in range(40):
            ask(ready.base_url, NAMED)
    assert 40 < len(upstream.seen) <= 40 + 10 + 4, "ten to spare and a tenth of forty"


def test_a_client_error_is_never_tried_again(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "400"
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(retries=3)) as ready:
        assert ask(ready.base_url, NAMED).status == 400
    assert len(upstream.seen) == 1


def test_nothing_is_tried_again_after_the_first_byte(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "cut"
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(retries=3)) as ready:
        answer = ask(ready.base_url, NAMED, stream=True)
    assert b"upstream_cut" in answer.body
    assert len(upstream.seen) == 1


def test_all_calls_together_keep_the_deadline(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave |= {"small": "slow", "large": "slow"}
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(deadline_s=0.3)) as ready:
        started_s = time.monotonic()
        answer = ask(ready.base_url, messages=EASY)
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - started_s < 1.5
    assert upstream.seen[0].gone.wait(2), "the slow upstream is told"


def test_a_retry_after_longer_than_the_deadline_is_not_waited_for(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "429"  # asks for seven seconds
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(retries=1, deadline_s=3.0)) as ready:
        started_s = time.monotonic()
        answer = ask(ready.base_url, NAMED)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert time.monotonic() - started_s < 2


def test_a_breaker_opens_rests_probes_and_closes(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "500"
    ledger, breakers = tmp_path / "l.sqlite", BreakerSettings(failures=2, open_s=0.4)
    with stand(upstream, ledger, breakers=breakers, routing=RoutingSettings(retries=0)) as ready:
        for _ in range(2):
            assert ask(ready.base_url, NAMED).status == 502
        assert states(ready) == {"small": "open", "large": "closed"}
        refused = ask(ready.base_url, NAMED)
        assert (refused.status, refused.error["code"]) == (503, "breaker_open")
        assert refused.headers["retry-after"] == "1"
        assert len(upstream.seen) == 2, "nobody is sent to a place that rests"
        skipped = ask(ready.base_url, messages=EASY)
        assert (skipped.status, skipped.headers["x-turnout-model"]) == (200, "large")
        assert row(ledger, skipped.decision_id)["faults"] == "small: breaker_open"
        time.sleep(0.45)
        assert states(ready)["small"] == "half_open"
        upstream.behave.clear()
        assert ask(ready.base_url, NAMED).status == 200
        assert states(ready)["small"] == "closed"


def test_a_rate_limit_rests_as_long_as_the_upstream_says(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "429"
    routing = RoutingSettings(retries=0)
    with stand(upstream, tmp_path / "l.sqlite", breakers=BreakerSettings(), routing=routing) as ready:
        assert ask(ready.base_url, NAMED).status == 429
        answer = ask(ready.base_url, NAMED)
    assert (answer.status, answer.error["code"]) == (503, "breaker_open")
    assert 6 <= int(answer.headers["retry-after"]) <= 8
    assert len(upstream.seen) == 1


def test_clients_that_leave_and_refused_requests_open_no_breaker(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "404"
    breakers = BreakerSettings(failures=2)
    with stand(upstream, tmp_path / "l.sqlite", breakers=breakers) as ready:
        for _ in range(4):
            assert ask(ready.base_url, NAMED).status == 404
        assert states(ready)["small"] == "closed"


def test_a_slow_candidate_is_hedged_and_the_loser_is_hung_up_on(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "slow"
    ledger, routing = tmp_path / "l.sqlite", RoutingSettings(hedge_after_s=0.05)
    with stand(upstream, ledger, routing=routing) as ready:
        started_s = time.monotonic()
        answer = ask(ready.base_url, messages=EASY)
        assert time.monotonic() - started_s < 2
        assert (answer.status, answer.headers["x-turnout-model"]) == (200, "large")
        assert upstream.seen[0].gone.wait(2), "the loser's connection is closed"
        assert states(ready) == {"small": "closed", "large": "closed"}
    found = row(ledger, answer.decision_id)
    assert (found["attempts"], found["served"], found["faults"]) == (2, "large", "large: hedged")
    assert found["usage_estimated"] == 1, "what the loser wrote is not known"


def test_a_fast_candidate_is_not_hedged(upstream: Upstream, tmp_path: Path) -> None:
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(hedge_after_s=2.0)) as ready:
        answer = ask(ready.base_url, messages=EASY, stream=True)
    assert (answer.status, len(upstream.seen)) == (200, 1)
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_hedge_that_fails_leaves_the_first_one_to_answer(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave |= {"small": "late", "large": "500"}
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(hedge_after_s=0.05)) as ready:
        answer = ask(ready.base_url, messages=EASY)
    assert (answer.status, answer.headers["x-turnout-model"]) == (200, "small")


def test_load_beyond_the_places_waits_and_beyond_the_queue_is_shed(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["small"] = "slow"
    server = ServerSettings(port=0, max_running=1, max_queued=1, queue_s=20.0)
    answers: list[Answer] = []
    with stand(upstream, tmp_path / "l.sqlite", server=server) as ready:
        threads = [
            threading.Thread(target=lambda: answers.append(ask(ready.base_url, NAMED))) for _ in range(2)
        ]
        for number, thread in enumerate(threads):
            thread.start()
            time.sleep(0.2)
            assert len(upstream.seen) == 1, f"request {number + 1} of 2 does not pass the gate together"
        shed = ask(ready.base_url, NAMED)
        assert (shed.status, shed.error["code"], shed.headers["retry-after"]) == (503, "overloaded", "1")
        assert row(tmp_path / "l.sqlite", shed.decision_id)["error"] == "overloaded"
        upstream.release.set()
        for thread in threads:
            thread.join()
    assert [answer.status for answer in answers] == [200, 200]


def test_load_sheds_at_once_while_the_gateway_is_full_and_serves_again_after_it(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["small"] = "slow"
    server = ServerSettings(port=0, max_running=1, max_queued=0)
    with stand(upstream, tmp_path / "l.sqlite", server=server) as ready:
        first = threading.Thread(target=lambda: ask(ready.base_url, NAMED))
        first.start()
        while not upstream.seen:
            time.sleep(0.01)
        assert ask(ready.base_url, NAMED).status == 503
        upstream.release.set()
        first.join()
        upstream.behave.clear()
        assert ask(ready.base_url, NAMED).status == 200, "the place came back"


def test_who_served_is_said_only_where_somebody_did(upstream: Upstream, tmp_path: Path) -> None:
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(retries=0)) as ready:
        good = ask(ready.base_url, messages=EASY)
        upstream.behave |= {"small": "500", "large": "500"}
        failed = ask(ready.base_url, messages=EASY)
        upstream.behave |= {"small": "422"}
        refused = ask(ready.base_url, messages=EASY)
    assert good.headers["x-turnout-model"] == "small"
    assert "x-turnout-chosen" not in good.headers
    assert failed.status == 502
    assert "x-turnout-model" not in failed.headers
    assert failed.headers["x-turnout-chosen"] == "small"
    assert (refused.status, refused.headers["x-turnout-model"]) == (422, "small"), "it did answer"


def test_a_rest_that_one_asks_for_is_told_where_the_last_fails(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave |= {"small": "429", "large": "hangs up"}
    with stand(upstream, tmp_path / "l.sqlite", routing=RoutingSettings(retries=0)) as ready:
        answer = ask(ready.base_url, messages=EASY)
        alone = ask(ready.base_url, messages=EASY, model="large")
    assert (answer.status, answer.error["code"]) == (503, "upstream_unreachable")
    assert answer.headers["retry-after"] == "7"
    assert "retry-after" not in alone.headers
