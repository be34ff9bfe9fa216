"""Deciding and judging from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from turnout.cli.main import main
from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.core.artifact import save
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "deployment"
    assert main(["fit", "reason18", "--router", "knn", "--quality-floor", "0.95", "--out", str(folder)]) == 0
    return folder


def route(
    deployment: Path, *arguments: str | bytes, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, as a shell would."""
    command = [sys.executable, "-m", "turnout.cli.main", "route", str(deployment), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_route_ranks_candidates_for_each_text(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", str(fitted), "What is 2 + 2?", "Sort a list.", "--json", "--top", "3"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["decisions"]) == 2
    assert data["decisions"][0]["candidate"] == data["decisions"][0]["ranked"][0]["candidate"]
    assert len(data["decisions"][0]["ranked"]) == 3
    assert main(["route", str(fitted), "What is 2 + 2?", "--usd-per-quality", "1e-9"]) == 0
    assert "->" in capsys.readouterr().out


def test_route_takes_options_wherever_they_stand(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--json", "one", "two"],
        ["one", "--json", "two"],
        ["one", "two", "--top", "2", "--json"],
    ):
        assert main(["route", str(fitted), *arguments]) == 0
        assert len(json.loads(capsys.readouterr().out)["decisions"]) == 2
    with pytest.raises(SystemExit):
        main(["route", str(fitted), "one", "--jsno", "two"])
    assert "unrecognized arguments: --jsno two" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(fitted), "reason18", "surplus"])


def test_route_refuses_a_cap_below_the_cheapest(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", str(fitted), "one", "--usd-per-1k", "0.00001"]) == 1
    assert "'--usd-per-1k' is below the cheapest there is; allowed: at least" in capsys.readouterr().err


def test_route_knows_context_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = [Candidate(model="small", context_tokens=50), Candidate(model="large", context_tokens=100)]
    table = OutcomeTable(
        queries=[Query(id=f"q{i}", text=f"text {i}") for i in range(40)],
        candidates=pool,
        query_index=np.repeat(np.arange(40), 2),
        candidate_index=np.tile([0, 1], 40),
        quality=np.tile([0.2, 0.9], 40),
    )
    goal = Goal()
    means = BestSingleRouter().fit(table)
    save(Deployment(router=means, fallback=means, policy=Best(), goal=goal), tmp_path / "pool")
    assert main(["route", str(tmp_path / "pool"), "short", "word " * 60, "word " * 400, "--json"]) == 1
    decisions = json.loads(capsys.readouterr().out)["decisions"]
    assert [row["candidate"] for row in decisions] == ["large", "large", None]
    assert [sorted(row["refused"]) for row in decisions] == [[], ["small"], ["large", "small"]]
    assert main(["route", str(tmp_path / "pool"), "word " * 400]) == 1
    assert "nobody may serve this text" in capsys.readouterr().out


def test_a_deployment_is_not_judged_on_what_it_learned_from(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["evaluate", str(fitted), "reason18", "--resamples", "50"]
    for other in (["--resplit", "--seed", "5"], ["--train-split", "test", "--test-split", "train"]):
        assert main([*again, *other]) == 1
        assert "held-out queries; allowed: none of them" in capsys.readouterr().err
    assert main([*again, "--resplit", "--seed", "5", "--allow-leakage", "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("which was allowed: its row shows memory" in warning for warning in warnings)


def test_a_report_on_another_pool_is_refused(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "open9", "--deployment", str(fitted), "--out", str(tmp_path / "report")]) == 1
    assert "the table lacks 17 of the deployment's candidates" in capsys.readouterr().err


def test_a_terminal_without_the_characters_gets_escapes(fitted: Path) -> None:
    command = [sys.executable, "-m", "turnout", "route", str(fitted), "caf\u00e9"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\xe9" in done.stdout


def test_route_reads_a_file_and_standard_input(fitted: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\n\ntwo\n", encoding="utf-8")
    assert main(["route", str(fitted), "--file", str(texts), "--json"]) == 0
    done = route(fitted, "--json", stdin="\ufeffun caf\u00e9".encode())
    assert json.loads(done.stdout)["decisions"][0]["candidate"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([], b"caf\xe9", "standard input is not UTF-8 at byte offset 3; allowed: text in UTF-8; got: '0xe9'"),
        ([], b"\x7fELF\x00\x01", "standard input is binary: it holds a zero byte at offset 4; allowed: "),
        ([], b"", "standard input holds no text; allowed: a text; give the question"),
        ([], b" \n", "standard input holds no text"),
        ([b"caf\xe9"], b"", "text 1 is not UTF-8 at byte offset 3"),
    ],
)
def test_route_refuses_what_is_no_text(
    fitted: Path, arguments: list[str | bytes], stdin: bytes, words: str
) -> None:
    done = route(fitted, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no text; allowed: a file with one text a line; give"),
        (b"\n \n", "holds no text"),
        (b"one\ncaf\xe9\n", "is not UTF-8 at byte offset 7; allowed: text in UTF-8; got: '0xe9'; save it"),
        (b"one\n\0two", "is binary: it holds a zero byte at offset 4"),
        (None, "cannot be read; allowed: a file with one text a line; got: 'No such file or directory'"),
    ],
)
def test_route_refuses_a_file_that_holds_no_texts(
    fitted: Path, tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["route", str(fitted), "--file", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"--file {str(path)!r} {words}" in error
    assert main(["route", str(fitted), "hello", "--file", str(path)]) == 1
    assert "allowed: one of the two" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", " ", "\ud800"])
def test_route_refuses_an_argument_without_text(
    fitted: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["route", str(fitted), "hello", text]) == 1
    error = capsys.readouterr().err
    assert "text 2 " in error
    assert "allowed: " in error
