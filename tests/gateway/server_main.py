"""Serve the tests' own deployment from a process of its own: `python server_main.py UPSTREAM LEDGER`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from turnout.gateway.config import LedgerSettings, ServerSettings
from turnout.gateway.lifecycle import Ready, serve


def say(line: str) -> None:
    """Write a line that the test reads."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(ready: Ready) -> None:
    say(msgspec.json.encode({"base_url": ready.base_url, "notices": ready.notices}).decode())


if __name__ == "__main__":
    upstream, ledger, drain_s, *leave_s = sys.argv[1:]
    config = msgspec.structs.replace(
        make_config(upstream, Path(ledger)),
        server=ServerSettings(port=0, drain_s=int(drain_s), leave_s=float(leave_s[0]) if leave_s else None),
        # Time alone decides when rows are written, whatever the load.
        ledger=LedgerSettings(path=ledger, flush_rows=1_000_000),
    )
    serve(config, deployment=make_deployment(), ready=tell)
    say("closed")
