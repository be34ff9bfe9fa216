"""A gateway with sequencers before a scripted upstream, and what its calls cost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.gateway.client import Answer, ask, row
from tests.gateway.pool import make_deployment
from tests.gateway.scripted import Scripted, script, scripted_server
from tests.gateway.settings import make_config
from turnout.gateway.config import Config, SequencerSettings
from turnout.gateway.lifecycle import running

SMALL_USD = (100 * 0.1 + 10 * 0.4) / 1e6
LARGE_USD = (100 * 1.0 + 10 * 4.0) / 1e6
POLICY_USD = (100 * 0.05 + 10 * 0.1) / 1e6

R1 = SequencerSettings(
    kind="router_r1",
    policy_model="policy",
    policy_provider="main",
    policy_input_usd_per_mtok=0.05,
    policy_output_usd_per_mtok=0.1,
)
SEQUENCERS = {
    "r1": R1,
    "plain": msgspec.structs.replace(R1, options={"sub_queries": False, "max_turns": 2}),
    "hasty": msgspec.structs.replace(R1, deadline_s=0.8),
    "poor": msgspec.structs.replace(R1, max_usd=1e-9),
    "order": SequencerSettings(kind="fixed", options={"order": ["small", "large"]}, max_usd=1.0),
}


def config_for(server: Scripted, ledger: Path, **changes: Any) -> Config:
    plain = make_config(server.base_url, ledger, first_byte_s=5.0)
    return msgspec.structs.replace(plain, sequencers=SEQUENCERS, **changes).check()


@contextmanager
def standing(ledger: Path) -> Iterator[Stand]:
    """Run a gateway with `SEQUENCERS` before a scripted upstream."""
    with (
        scripted_server() as server,
        running(config_for(server, ledger), deployment=make_deployment()) as ready,
    ):
        yield Stand(ready.base_url, server, ledger)


class Stand:
    """A gateway before a scripted upstream."""

    def __init__(self, base_url: str, server: Scripted, ledger: Path) -> None:
        self.base_url, self.server, self.ledger = base_url, server, ledger

    def begin(self) -> None:
        """Forget what was asked, and say what the policy's two calls and its answer need."""
        self.server.seen.clear()
        self.server.release.clear()
        self.server.usage = True
        self.server.say = {
            "policy": script("<search>small: what?", "<search>large: how?", "<answer>both said so"),
            "small": lambda body: "small says",
            "large": lambda body: "large says",
        }

    def ask(self, model: str = "turnout/r1", **fields: Any) -> Answer:
        return ask(self.base_url, {"model": model}, **fields)

    def row(self, answer: Answer) -> dict[str, Any]:
        return row(self.ledger, answer.decision_id)

    def trace(self, decision_id: str) -> dict[str, Any]:
        for _ in range(200):
            with sqlite3.connect(self.ledger) as connection:
                connection.row_factory = sqlite3.Row
                found = connection.execute(
                    "SELECT * FROM traces WHERE decision_id = ?", (decision_id,)
                ).fetchall()
            connection.close()
            if found:
                assert len(found) == 1
                return dict(found[0])
            time.sleep(0.01)
        raise AssertionError(f"no trace of {decision_id}")
