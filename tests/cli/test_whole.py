"""A command that fails leaves no folder: a half of one would be taken for a table, or for a deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.cli.main import main
from turnout.cli.whole import whole_out
from turnout.datasets import load

GOOD = "prompt,model,quality\nSay hello,small,1\nSay hello,large,0.5\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_import_that_fails_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = here / "bad.csv"
    bad.write_text(GOOD.replace("0.5", "7"), encoding="utf-8")
    assert main(["import", "bad.csv", "--out", "a/b/table"]) == 1
    assert "quality of 'large'" in capsys.readouterr().err
    assert list(here.iterdir()) == [bad]
    bad.write_text(GOOD, encoding="utf-8")
    assert main(["import", "bad.csv", "--out", "a/b/table"]) == 0
    assert load(here / "a/b/table").num_rows == 2
    assert [path.name for path in (here / "a/b").iterdir()] == ["table"]


def test_a_forced_import_that_fails_leaves_the_table_that_was_there(here: Path) -> None:
    path = here / "doc.csv"
    path.write_text(GOOD, encoding="utf-8")
    assert main(["import", "doc.csv", "--out", "table"]) == 0
    before = load(here / "table").fingerprint
    path.write_text(GOOD.replace("0.5", "x"), encoding="utf-8")
    assert main(["import", "doc.csv", "--out", "table", "--force"]) == 1
    assert load(here / "table").fingerprint == before
    path.write_text(GOOD.replace("0.5", "0.25"), encoding="utf-8")
    assert main(["import", "doc.csv", "--out", "table", "--force"]) == 0
    assert load(here / "table").fingerprint != before


def test_a_fit_that_fails_leaves_nothing(here: Path) -> None:
    (here / "doc.csv").write_text(GOOD, encoding="utf-8")
    assert main(["fit", "doc.csv", "--out", "deployment"]) == 1
    assert [path.name for path in here.iterdir()] == ["doc.csv"]


def test_what_a_killed_run_left_is_no_obstacle(here: Path) -> None:
    (here / ".x.part").mkdir()
    (here / ".x.part" / "half").write_text("", encoding="utf-8")
    with whole_out(here / "x", force=False) as part:
        (part / "all").write_text("", encoding="utf-8")
    assert [str(path.relative_to(here)) for path in here.rglob("*")] == ["x", "x/all"]
