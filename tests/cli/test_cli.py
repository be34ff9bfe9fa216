from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from turnout.cli.main import COMMANDS, build_parser, main
from turnout.cli.options import goal_of, load_deployment
from turnout.core import Goal


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "deployment"
    assert main(["fit", "reason18", "--router", "knn", "--quality-floor", "0.95", "--out", str(folder)]) == 0
    return folder


RECORD = {
    "--allow-unknown-prices",
    "--api-key-env",
    "--base-url",
    "--cap",
    "--concurrency",
    "--config",
    "--dry-run",
    "--judge",
    "--judge-api-key-env",
    "--judge-base-url",
    "--judge-prompt",
    "--judge-temperature",
    "--limit",
    "--max-output-tokens",
    "--max-wait-s",
    "--model",
    "--out",
    "--price",
    "--prices",
    "--program",
    "--program-timeout-s",
    "--reference-column",
    "--retries",
    "--samples",
    "--score",
    "--seed",
    "--system",
    "--temperature",
    "--text-column",
    "--timeout-s",
}


def test_the_list_of_flags_is_frozen() -> None:
    """A new flag is a promise: add it here, to docs/cli.md and to the changelog."""
    dial = {"--quality-floor", "--usd-per-1k", "--usd-per-quality", "--risk", "--confidence"}
    always = {"-h", "--help", "--json", "--debug"}
    splits = {"--train-split", "--test-split", "--resplit", "--seed"}
    expected = {
        "bench": {
            f"--{name}"
            for name in "setting gates seeds steps text out jobs device sets routers seed ray".split()
        },
        "demo": {"--once", "--table", "--out", "--host", "--port", "--seed"} | dial,
        "local": {
            "--once",
            "--out",
            "--steps",
            "--questions",
            "--usd-per-pflop",
            "--host",
            "--port",
            "--seed",
        }
        | dial,
        "fit": {"--out", "--router", "--routes", "--tasks-given", "--columns", "--force"} | dial | splits,
        "evaluate": {"--resamples", "--allow-leakage"} | splits,
        "report": {"--out", "--deployment", "--router", "--tasks-given", "--also", "--dense", "--resamples"}
        | {"--allow-leakage", "--columns"}
        | dial
        | splits,
        "add-candidate": {"--candidate", "--out", "--force"},
        "route": {"--file", "--tag", "--task", "--top"} | dial,
        "serve": {"--check", "--workers"},
        "config": set(),
        "ledger": set(),
        "keys": set(),
        "whatif": {"--dial", "--days"},
        "nn": {"--out", "--rho", "--seed", "--force"},
        "import": {
            f"--{name}"
            for name in "out format force column scale ignore drop missing prices repeats option".split()
        },
        "record": RECORD,
        "promote": {"--check", "--days", "--force", "--key-env", "--url"},
        "rollback": {"--key-env", "--url"},
        "retrain": {"--days", "--force", "--min-scored", "--out", "--router", "--seed", "--source"} | dial,
    }
    parser = build_parser()
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    found = {
        name: {flag for action in command._actions for flag in action.option_strings}
        for name, command in commands.items()  # type: ignore[union-attr]
    }
    assert found == {name: flags | always for name, flags in expected.items()}
    assert set(COMMANDS) == set(expected)


def test_the_flags_of_keys_are_frozen() -> None:
    parser = build_parser()
    keys = parser._subparsers._group_actions[0].choices["keys"]  # type: ignore[union-attr, index]
    actions = keys._subparsers._group_actions[0].choices
    found = {
        name: {flag for action in command._actions for flag in action.option_strings}
        - {"-h", "--help", "--json", "--debug"}
        for name, command in actions.items()
    }
    create = "tenant model dial no-dial quality-floor usd-per-1k usd-per-quality budget-usd budget-period"
    create += " requests-per-min tokens-per-min admin expires-days"
    assert found == {
        "create": {f"--{name}" for name in create.split()},
        "list": set(),
        "revoke": set(),
        "hash": set(),
    }


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


@pytest.mark.parametrize(
    ("command", "dial", "words"),
    [
        (["fit", "reason18", "--out", "x"], ["--risk", "0.1"], "--risk without a promise"),
        (["report", "reason18", "--out", "x"], ["--confidence", "0.9"], "--confidence without a promise"),
        (
            ["route", "x", "hello"],
            ["--risk", "0.1", "--confidence", "0.9"],
            "--risk and --confidence",
        ),
        (["demo", "--once"], ["--confidence", "0.9"], "got: 'no dial'; add one of the two"),
        (
            ["fit", "reason18", "--out", "x"],
            ["--risk", "0.1", "--usd-per-quality", "2"],
            "allowed: together with --quality-floor or --usd-per-1k; got: '--usd-per-quality 2'",
        ),
    ],
)
def test_terms_of_a_promise_need_a_promise(
    command: list[str], dial: list[str], words: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([*command, *dial]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_terms_of_a_promise_reach_the_goal() -> None:
    arguments = ["route", "x", "hello", "--quality-floor", "0.9", "--risk", "0.02", "--confidence", "0.8"]
    stated = goal_of(build_parser().parse_args(arguments))
    assert stated == Goal(quality_floor=0.9, risk=0.02, confidence=0.8)
    assert goal_of(build_parser().parse_args(arguments[:3])) is None


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
        (
            ["fit", "reason18", "--train-split", "train", "--test-split", "train", "--out", "x"],
            ("one split is named as the training and as the held-out part", "got: 'train'; name another"),
        ),
        (["fit", "reason18", "--train-split", "test", "--out", "x"], ("two different splits; got: 'test'",)),
        (["fit", "reason18", "--resplit", "--test-split", "test", "--out", "x"], ("leave one of them out",)),
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


def test_a_split_that_nobody_knows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from turnout.datasets import load

    table = load("reason18")
    table.with_splits(["dev"] * len(table.queries)).save(tmp_path / "dev")
    table.with_splits(["test"] * len(table.queries)).save(tmp_path / "test")
    arguments = ["--router", "knn", "--out", str(tmp_path / "fitted")]
    assert main(["fit", str(tmp_path / "dev"), *arguments]) == 0
    assert "note: the table's own split 'dev' is not known" in capsys.readouterr().err
    assert main(["fit", str(tmp_path / "test"), *arguments, "--force"]) == 1
    assert "--train-split" in capsys.readouterr().err


def test_a_model_is_added_to_a_deployment_from_probe_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from turnout.datasets import load

    table = load("reason18")
    newcomer, *others = table.names
    split = ["train" if number % 4 else "test" for number in range(len(table.queries))]
    table.with_splits(split).select(candidates=others).save(tmp_path / "known")
    table.where(np.arange(len(split)) % 8 == 0).save(tmp_path / "probe")
    fit = ["fit", str(tmp_path / "known"), "--router", "ridge", "--quality-floor", "0.95"]
    assert main([*fit, "--resplit", "--out", str(tmp_path / "old")]) == 0
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    arguments = ["add-candidate", old, str(tmp_path / "probe"), "--out", new]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"newcomer    {newcomer}" in said
    assert "shown       " in said
    assert [candidate.name for candidate in load_deployment(new).candidates] == [*others, newcomer]
    assert main(["route", new, "What is 2 + 2?"]) == 0
    assert main([*arguments, "--force", "--candidate", others[0]]) == 1
    assert "already in the pool" in capsys.readouterr().err
    assert main([*arguments[:2], str(tmp_path / "known"), *arguments[3:], "--force"]) == 1
    assert "got: none that it lacks" in capsys.readouterr().err.replace("'", "")


ROUTES = """# who takes what
puzzles: houses in a row, who owns what, clues -> {0}

code: write a function, return the value -> {1}
"""


def test_routes_in_plain_language_are_read_from_a_file_and_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from turnout.datasets import load

    names = load("reason18").names
    path, out = tmp_path / "routes.txt", str(tmp_path / "fitted")
    path.write_text(ROUTES.format(names[2], names[5]), encoding="utf-8")
    fit = ["fit", "reason18", "--routes", str(path), "--out", out]
    assert main(fit) == 0
    assert "guard       none: routes are what you prefer" in capsys.readouterr().out
    router = load_deployment(out).router
    assert router.config()["routes"] == (
        ("puzzles", "houses in a row, who owns what, clues", names[2]),
        ("code", "write a function, return the value", names[5]),
    )
    assert main(["route", out, "Clues: there are five houses in a row. Who owns the cat?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decisions"][0]["candidate"] == names[2]


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("puzzles houses in a row", [], "line 1: a route; allowed: NAME: DESCRIPTION -> CANDIDATE"),
        ("\npuzzles: houses -> gpt5000", [], "line 2: the candidate is not in the table; got: 'gpt5000'"),
        ("# nothing", [], "holds no route"),
        (
            "puzzles: houses -> x",
            ["--router", "knn"],
            "--routes goes with the router 'preference_routes' alone",
        ),
        (None, ["--router", "preference_routes"], "add --routes FILE"),
    ],
)
def test_routes_that_cannot_be_read_are_refused(
    text: str | None, more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "routes.txt"
    path.write_text(text or "", encoding="utf-8")
    given = [] if text is None else ["--routes", str(path)]
    assert main(["fit", "reason18", "--out", str(tmp_path / "x"), *given, *more]) == 1
    assert words in capsys.readouterr().err
