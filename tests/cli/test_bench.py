"""`turnout bench gates`: a table, a JSON file and a picture; the second call trains nothing again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from turnout.cli.main import main


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gates"
    call = [
        "bench",
        "gates",
        "--gates",
        "relu",
        "--seeds",
        "2",
        "--steps",
        "10",
        "--jobs",
        "1",
        "--out",
        str(out),
    ]
    assert main([*call, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["gate"] for row in result["rows"]} == {"dense", "random", "relu"}
    assert len(result["cells"]) == 6
    assert (result["run"]["trained"], result["run"]["jobs"]) == (6, 1)
    assert result["run"]["wall_s"] > 0
    assert (out / "gates.png").stat().st_size > 10_000
    stamps = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert main(call) == 0
    told = capsys.readouterr().out
    assert "against dense" in told
    assert "0 of 6 cells trained in 0.0 minutes, 1 at a time" in told
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


def test_an_unknown_gate_and_another_setting_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "gates", "--gates", "relo", "--out", str(tmp_path / "out")]) == 1
    assert "relu" in capsys.readouterr().err
    for device in ("cudda", "meta", "cuda:99"):
        assert main(["bench", "gates", "--device", device, "--out", str(tmp_path / "out")]) == 1
        assert (
            f"device; allowed: cpu, or a device of this machine; got: '{device}:" in capsys.readouterr().err
        )
    assert not (tmp_path / "out").exists()
    assert main(["bench", "gates", "--seeds", "11", "--out", str(tmp_path / "out")]) == 1
    assert "at most 10" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_ends_cells_that_run_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = [sys.executable, "-m", "turnout", "bench", "gates", "--gates", "switch", "--seeds", "2"]
    running = subprocess.Popen(
        [*call, "--steps", "20000", "--jobs", "2", "--out", str(out)],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60.0
        # The two that train, and the one that watches over what they share.
        while len(_members(running.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=20)
        assert running.returncode == 130
        assert b"Traceback" not in said
        assert b"the same command goes on there" in said
        deadline = time.monotonic() + 20.0
        while _members(running.pid) and time.monotonic() < deadline:
            time.sleep(0.1)  # the one that watches over what they shared ends when it sees that they have
        assert not _members(running.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def _members(session: int) -> list[str]:
    """Return the processes of a session that still run."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "--sid", str(session)], capture_output=True, text=True, check=False
    )
    return [state for state in listed.stdout.split("\n") if state.strip() and not state.startswith("Z")]


OWN = """
from turnout.nn.gates.contract import Gate, fp32_logits, new_weight
from turnout.nn.plan import SparsePlan


class AboveTheMean(Gate):
    def __init__(self, *, width, num_experts):
        super().__init__(width=width, num_experts=num_experts)
        self.weight_ED = new_weight(num_experts, width)

    def decide(self, x_TD, context):
        logits_TE = fp32_logits(x_TD, self.weight_ED)
        is_pair_TE = logits_TE >= logits_TE.mean(dim=-1, keepdim=True)
        mask_T = context.mask_T()
        weights_TE = logits_TE.sigmoid() * is_pair_TE
        return SparsePlan.from_dense(weights_TE, is_pair_TE=is_pair_TE, mask_T=mask_T, logits_TE=logits_TE)


class Needy(AboveTheMean):
    def __init__(self, *, width, num_experts, mood):
        super().__init__(width=width, num_experts=num_experts)
"""


@pytest.mark.timeout(300)
def test_a_gate_that_somebody_else_registered_takes_part(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    info = parts / "own_gate-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-gate\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[turnout.nn]\nabove_the_mean = own_gate:AboveTheMean\nneedy = own_gate:Needy\n"
    )
    (parts / "own_gate.py").write_text(OWN)
    call = [sys.executable, "-m", "turnout", "bench", "gates", "--seeds", "2", "--steps", "10", "--jobs", "1"]
    paths = os.pathsep.join([str(parts), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    found = []
    for name in ("above_the_mean", "needy"):
        named = [*call, "--gates", name, "--out", str(tmp_path / name)]
        found.append(subprocess.run(named, check=False, capture_output=True, text=True, env=environment))
    assert found[0].returncode == 0, found[0].stderr
    rows = json.loads((tmp_path / "above_the_mean" / "gates.json").read_text())["rows"]
    [own] = [row for row in rows if row["gate"] == "above_the_mean"]
    assert own["seeds"] == 2
    # About four of eight experts a token, where two would cost what the dense model costs.
    assert own["flops"]["value"] > 1.3
    assert found[1].returncode == 1
    assert (
        "'needy': arguments without a default; allowed: width, num_experts, k; got: 'mood'" in found[1].stderr
    )
