"""What rules do with long texts is done beside the event loop: nobody else waits for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.gateway.client import ask, call
from tests.gateway.pool import make_deployment
from tests.gateway.upstream import Upstream
from turnout.gateway.config import load_config
from turnout.gateway.lifecycle import running

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
    took_s: list[float] = []
    with running(load_config(settings), deployment=make_deployment()) as ready:

        def work() -> None:
            began_s = time.monotonic()
            answer = ask(ready.base_url, {"model": "small"}, messages=[{"role": "user", "content": text}])
            took_s.append(time.monotonic() - began_s)
            assert answer.status == 200

        thread = threading.Thread(target=work)
        thread.start()
        waits_s = []
        while thread.is_alive():
            began_s = time.monotonic()
            assert call(ready.base_url.removesuffix("/v1"), "/healthz").status == 200
            waits_s.append(time.monotonic() - began_s)
            time.sleep(0.005)
        thread.join()
    assert len(took_s) == 1
    assert max(waits_s) < took_s[0] / 3, (max(waits_s), took_s)
