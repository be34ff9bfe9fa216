"""This module is one worker of several: `python -m turnout.gateway.worker CONFIG HOST PORT FOLDER SLOT`.

It speaks to its parent in lines of JSON on standard output, and drains when standard input ends.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path

from turnout.core.errors import TurnoutError
from turnout.gateway.address import bind
from turnout.gateway.app import build_app
from turnout.gateway.board import Board
from turnout.gateway.lifecycle import Ready, Server, set_up_telemetry
from turnout.gateway.rollout_admin import SettingsFile


def main(arguments: list[str]) -> int:
    """Serve until the parent says stop, or is gone."""
    path, host, port, folder, slot = arguments
    source = SettingsFile(Path(path))
    try:
        settings = source()
        gateway = build_app(settings, source=source)
        gateway.parts.metrics.board = Board(folder=Path(folder), slot=int(slot))
        gateway.parts.metrics.tally = gateway.parts.metrics.board.before()
        gateway.reloader.on_reload = lambda: _say("reloaded", True)
        listener = bind(host, int(port), share=True)
        server = Server(gateway=gateway, listener=listener, ready=_ready)
        stop = set_up_telemetry(settings)
        threading.Thread(target=_watch, args=(server,), daemon=True).start()
        try:
            server.run_bound()
        finally:
            stop()
    except TurnoutError as error:
        _say("error", str(error))
        return 1
    return 0


def _watch(server: Server) -> None:
    """Drain when the parent has closed its end of the pipe, as the system does for one that died."""
    sys.stdin.read()
    server.should_exit = True


def _ready(ready: Ready) -> None:
    _say("ready", list(ready.notices))


def _say(word: str, value: object) -> None:
    sys.stdout.write(json.dumps({word: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(main(sys.argv[1:]))
