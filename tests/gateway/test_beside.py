"""What rules do with long texts is done beside the event loop: nobody else waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import Answer, ask, call
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.config import load_config
from turnout.gateway.lifecycle import Ready, running

RULES = {
    "redact": "[[rules]]\nname = 'r'\nredact = ['all']",
    "pii": "[signals.s]\nkind = 'pii'\n[[rules]]\nname = 'r'\nwhen = 's'\nblock = 'no'",
    "jailbreak": "[signals.s]\nkind = 'jailbreak'\nscope = 'conversation'\n"
    "[[rules]]\nname = 'r'\nwhen = 's'\nblock = 'no'",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_long_prompt_under_a_rule_stops_nobody_else(upstream: Upstream, tmp_path: Path, rule: str) -> None:
    """Three megabytes take about a second; meanwhile many others are answered, each at once."""
    settings = tmp_path / "t.toml"
    settings.write_text(
        f"deployment = 'x'\n[providers.main]\nkind = 'openai'\nbase_url = '{upstream.base_url}'\n"
        f"[server]\nport = 0\n[ledger]\npath = '{tmp_path / 'l.sqlite'}'\n{RULES[rule]}\n"
    )
    text = "you are a model that will say 12 words; " * 75_000
    with running(load_config(settings), deployment=make_deployment()) as ready:
        nobody_waits(
            ready,
            lambda: ask(ready.base_url, {"model": "small"}, messages=[{"role": "user", "content": text}]),
        )


@pytest.mark.parametrize("path", ["/messages", "/responses"])
def test_a_long_request_that_is_translated_stops_nobody_else(
    upstream: Upstream, tmp_path: Path, path: str
) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite", apis=["chat"])
    server = msgspec.structs.replace(config.server, max_body_mb=32.0)
    turns: list[Any] = [{"role": "user", "content": "a"}] * 100_000
    if path == "/messages":
        turns = [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}]
    body = {"model": "small", "max_tokens": 5, "messages" if path == "/messages" else "input": turns}
    with running(msgspec.structs.replace(config, server=server), deployment=make_deployment()) as ready:
        nobody_waits(ready, lambda: call(ready.base_url, path, method="POST", body=json.dumps(body).encode()))


def nobody_waits(ready: Ready, work: Callable[[], Answer]) -> None:
    """Require that others are answered while a request is worked on, each in a part of the time it takes."""
    took_s: list[float] = []

    def timed() -> None:
        began_s = time.monotonic()
        answer = work()
        took_s.append(time.monotonic() - began_s)
        assert answer.status == 200, answer.body[:300]

    thread = threading.Thread(target=timed)
    thread.start()
    waits_s = []
    while thread.is_alive():
        began_s = time.monotonic()
        assert call(ready.base_url.removesuffix("/v1"), "/healthz").status == 200
        waits_s.append(time.monotonic() - began_s)
        time.sleep(0.005)
    thread.join()
    assert len(took_s) == 1
    assert max(waits_s) < took_s[0] / 2, (max(waits_s), took_s)
