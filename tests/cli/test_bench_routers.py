"""`turnout bench routers`: cells that are gone on with after Ctrl-C, and wrong calls refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from turnout.cli.main import main


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sets", ","], "--sets"),
        (["--sets", "open9", "--routers", " , "], "--routers"),
        (["--sets", "open9", "--routers", "knm"], "did you mean 'knn'"),
        (["--sets", "nowhere"], "no table is called 'nowhere'"),
        (["--gates", "relu"], "--gates is not for turnout bench routers"),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "routers", *options, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/cells/*"))


def test_routers_are_not_for_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gates", "--sets", "open9"]) == 1
    assert "--sets is not for turnout bench gates" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_leaves_whole_cells_and_the_next_call_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = [sys.executable, "-m", "turnout", "bench", "routers", "--sets", "open9", "--out", str(out)]
    call += ["--routers", "best_single,uniform,group_mean,knn", "--jobs", "1"]
    # As a terminal does it: the whole group is told, and nobody was started to ignore it.
    first = subprocess.Popen(
        call,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60.0
    while not list(out.glob("cells/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)
    try:
        _, said = first.communicate(timeout=30)
    finally:
        first.kill()
    assert first.returncode == 130, said
    assert b"Traceback" not in said
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert 0 < len(stamps) < 4
    done = subprocess.run([*call, "--json"], capture_output=True, check=True)
    cells = json.loads(done.stdout)["cells"]
    assert [cell["method"] for cell in cells] == ["best_single", "uniform", "group_mean", "knn"]
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
