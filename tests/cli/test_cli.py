from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from turnout.cli.main import COMMANDS, build_parser, main


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "deployment"
    assert main(["fit", "reason18", "--router", "knn", "--quality-floor", "0.95", "--out", str(folder)]) == 0
    return folder


def test_the_list_of_flags_is_frozen() -> None:
    """A new flag is a promise: add it here, to docs/cli.md and to the changelog."""
    dial = {"--quality-floor", "--usd-per-1k", "--usd-per-quality", "--risk", "--confidence"}
    always = {"-h", "--help", "--json", "--debug"}
    splits = {"--train-split", "--test-split", "--resplit", "--seed"}
    expected = {
        "demo": {"--once", "--table", "--out", "--host", "--port", "--seed"} | dial,
        "fit": {"--out", "--router", "--force"} | dial | splits,
        "evaluate": {"--resamples", "--allow-leakage"} | splits,
        "report": {"--out", "--deployment", "--router", "--also", "--dense", "--resamples", "--allow-leakage"}
        | dial
        | splits,
        "route": {"--file", "--task", "--top"} | dial,
        "serve": {"--check"},
        "import": {"--out", "--format", "--force"},
    }
    parser = build_parser()
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    found = {
        name: {flag for action in command._actions for flag in action.option_strings}
        for name, command in commands.items()  # type: ignore[union-attr]
    }
    assert found == {name: flags | always for name, flags in expected.items()}
    assert set(COMMANDS) == set(expected)


def test_fit_writes_an_artifact_and_says_what_it_promises(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (fitted / "manifest.json").is_file()
    arguments = [
        "fit",
        "reason18",
        "--router",
        "knn",
        "--quality-floor",
        "0.95",
        "--out",
        str(fitted),
        "--force",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "promise" in out
    assert "95.0% of the best single model's quality" in out


def test_evaluate_prints_the_table_for_people_and_machines(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(fitted), "reason18", "--resamples", "100"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("router", "knn", "best single", "random", "oracle"))
    assert main(["evaluate", str(fitted), "reason18", "--resamples", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]


def test_route_ranks_candidates_for_each_text(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", str(fitted), "What is 2 + 2?", "Sort a list.", "--json", "--top", "3"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["decisions"]) == 2
    assert data["decisions"][0]["candidate"] == data["decisions"][0]["ranked"][0]["candidate"]
    assert len(data["decisions"][0]["ranked"]) == 3
    assert main(["route", str(fitted), "What is 2 + 2?", "--usd-per-quality", "1e-9"]) == 0
    assert "->" in capsys.readouterr().out


def test_route_reads_a_file_and_standard_input(fitted: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\n\ntwo\n", encoding="utf-8")
    assert main(["route", str(fitted), "--file", str(texts), "--json"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "turnout.cli.main", "route", str(fitted), "--json"],
        input=b"caf\xe9 broken utf-8", capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["decisions"][0]["candidate"]


def test_report_writes_html_png_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert main(["report", "reason18", "--router", "knn", "--resamples", "100", "--out", str(out)]) == 0
    assert (out / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "group mean" in capsys.readouterr().out
    json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "reason81", "--out", "x"], ("reason81", "reason18")),
        (["fit", "reason18", "--router", "knnn", "--out", "x"], ("knnn", "knn")),
        (["fit", "reason18", "--quality-floor", "-1", "--out", "x"], ("Goal.quality_floor", "got: -1")),
        (["evaluate", "no-such-folder", "reason18"], ("no artifact at 'no-such-folder'",)),
        (["import", "no-such-file.csv", "--out", "x"], ("no-such-file.csv",)),
        (["serve", "no-such-config.toml"], ("no-such-config.toml",)),
        (["route", "no-such-folder", "hello"], ("no artifact",)),
        (["fit", "reason18", "--train-split", "tran", "--out", "x"], ("tran", "train")),
        (["fit", "open9", "--router", "knn", "--out", "/dev/null/x"], ("/dev/null/x", "choose another path")),
        (["demo", "--once", "--out", "/dev/null/x"], ("/dev/null/x", "choose another path")),
    ],
)
def test_errors_are_one_sentence_without_a_traceback(
    arguments: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"turnout {arguments[0]}: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_not_overwritten_unasked(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "reason18", "--router", "knn", "--out", str(fitted)]) == 1
    assert "add --force" in capsys.readouterr().err


def test_a_wrong_call_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nonsense"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "open9", "--out", "x", "--seed", "-1"],
        ["demo", "--once", "--port", "99999"],
        ["route", "x", "hello", "--top", "-3"],
    ],
)
def test_numbers_out_of_range_are_a_wrong_call(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "a whole number" in capsys.readouterr().err


def test_a_table_of_other_candidates_is_named_as_such(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(fitted), "open9"]) == 1
    assert "the table lacks 17 of the deployment's candidates" in capsys.readouterr().err


def test_debug_shows_the_error_itself() -> None:
    from turnout.core import ArtifactError

    with pytest.raises(ArtifactError):
        main(["evaluate", "no-such-folder", "reason18", "--debug"])


def test_the_parser_starts_without_heavy_imports() -> None:
    code = (
        "import sys; from turnout.cli.main import build_parser; build_parser(); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'pyarrow', 'matplotlib', 'aiohttp', 'uvicorn', 'rich', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
