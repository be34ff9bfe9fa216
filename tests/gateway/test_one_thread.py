"""A process that serves keeps matrix products on one thread; nobody else's habits are changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.gateway.fitted import fitted
from turnout.core.artifact import save
from turnout.gateway.one_thread import TOLD_BY, OneThread, num_threads

if num_threads() is None:
    pytest.skip("numpy came with another library than OpenBLAS", allow_module_level=True)

SERVE = """
import os, signal, sys
from turnout.gateway import serve
from turnout.gateway.one_thread import _call, num_threads

_call("set", 2)

def ready(told):
    print(num_threads(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

serve(sys.argv[1], ready=ready)
print(num_threads(), flush=True)
"""

SETTINGS = """
deployment = "deployment"
[server]
port = 0
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
"""


@pytest.mark.parametrize(("told", "expected"), [({}, ["1", "2"]), ({"OMP_NUM_THREADS": "2"}, ["2", "2"])])
def test_while_it_serves(told: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    save(fitted(), tmp_path / "deployment")
    path = tmp_path / "turnout.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if name not in TOLD_BY}
    command = [sys.executable, "-c", SERVE, str(path)]
    done = subprocess.run(
        command, check=False, env={**own, **told}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == expected, done.stderr


def test_a_guest_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOLD_BY:
        monkeypatch.delenv(name, raising=False)
    before = num_threads()
    guest = threading.Thread(target=OneThread().start)
    guest.start()
    guest.join()
    assert num_threads() == before
