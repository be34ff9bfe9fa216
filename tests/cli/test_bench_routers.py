"""`turnout bench routers`: cells that are gone on with after Ctrl-C, and wrong calls refused."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from turnout import __version__
from turnout.cli.main import main
from turnout.cli.origin import commit
from turnout.datasets import load


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


def test_a_result_says_what_it_was_made_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version, commit, command, time and the tables: enough to run it again and to compare two."""
    out = tmp_path / "out"
    call = ["bench", "routers", "--sets", "open9", "--routers", "best_single", "--out", str(out)]
    assert main([*call, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    body = json.loads((out / "routers.json").read_text(encoding="utf-8"))
    assert said == {"written": [str(out / "routers.json")], **body}
    assert body["turnout"] == __version__
    assert body["command"] == "turnout bench routers --sets open9 --routers best_single --seed 0"
    assert abs((datetime.now(UTC) - datetime.fromisoformat(body["time"])).total_seconds()) < 600
    assert body["python"] == platform.python_version()
    assert body["tables"] == {"open9": load("open9").fingerprint}
    assert body["commit"] == commit()
    assert {name: body["cells"][0][name] for name in ("turnout", "commit", "time")} == {
        name: body[name] for name in ("turnout", "commit", "time")
    }


def test_the_commit_is_that_of_this_checkout_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "theirs" / "turnout"
    there.mkdir(parents=True)
    (there / "__init__.py").write_text("", encoding="utf-8")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path / "theirs", check=True)
    monkeypatch.setattr("turnout.__file__", str(there / "__init__.py"))
    assert commit() is None
    for words in (["add", "."], ["commit", "-q", "-m", "y"]):
        subprocess.run([*git, *words], cwd=tmp_path / "theirs", check=True)
    clean = commit()
    assert clean is not None
    assert len(clean) == 12
    (there / "__init__.py").write_text("changed = True", encoding="utf-8")
    assert commit() == f"{clean}+"


def test_folders_of_one_name_keep_places_of_their_own() -> None:
    from turnout.cli.bench_routers import place_names

    assert place_names(["open9", "/data/b/tab"]) == {"open9": "open9", "/data/b/tab": "tab"}
    assert place_names(["a/tab", "b/tab"]) == {"a/tab": "a-tab", "b/tab": "b-tab"}
    assert place_names(["tab", "b/tab"]) == {"tab": "tab", "b/tab": "b-tab"}
    assert len(set(place_names(["x/a/tab", "y/a/tab", "x-a/tab"]).values())) == 3
