"""`turnout bench gates`: a table, a JSON file and a picture; the second call trains nothing again."""

from __future__ import annotations

import json
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
    assert (out / "gates.png").stat().st_size > 10_000
    stamps = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert main(call) == 0
    assert "against dense" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


def test_an_unknown_gate_and_another_setting_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "gates", "--gates", "relo", "--out", str(tmp_path / "out")]) == 1
    assert "relu" in capsys.readouterr().err
    assert main(["bench", "gates", "--seeds", "11", "--out", str(tmp_path / "out")]) == 1
    assert "at most 10" in capsys.readouterr().err
