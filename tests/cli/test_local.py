"""`turnout local`, from nothing to an answer: train, record, fit, evaluate, serve, ask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from turnout.cli.main import main
from turnout.datasets import load
from turnout.gateway import load_config


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_trains_records_and_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "local"
    arguments = ["local", "--once", "--json", "--out", str(out), "--steps", "120", "--questions", "120"]
    assert main([*arguments, "--usd-per-1k", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    table = load(out / "table")
    assert result["answer"]["model"] in table.names
    assert {"tiny", "small", "small[effort=lean]", "small[effort=least]"} == set(table.names)
    assert len(table.queries) == 120
    costs = dict(zip(table.names, table.cost_usd_QM.mean(axis=0), strict=True))
    assert costs["small[effort=least]"] < costs["small"]
    assert costs["tiny"] < costs["small"]
    assert (out / "curve.png").stat().st_size > 10_000
    config = load_config(out / "gateway.toml")
    assert {config.provider_of(name) for name in table.names} == {"tiny", "small"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--usd-per-pflop", "0"], "--usd-per-pflop; allowed: a number in (0, inf)"),
        (["--usd-per-pflop", "inf"], "--usd-per-pflop; allowed: a number in (0, inf)"),
        (["--quality-floor", "0"], "Goal.quality_floor; allowed: a number in (0, 2]"),
        (["--risk", "0.1"], "--risk without a promise to keep"),
        (["--questions", "1"], "--questions is too small"),
        (["--questions", "3"], "--questions is too small"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    out = tmp_path / "local"
    assert main(["local", "--once", "--out", str(out), "--steps", "1", *options]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from turnout.cli.main import main\n"
        f"sys.exit(main(['local', '--once', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'turnout[nn]'" in done.stderr
    assert "Traceback" not in done.stderr
