"""A run that is killed goes on, and pays for no answer twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.recording.desk import BAD_USD, GOOD_USD, Desk, arguments, asked, write_prompts
from turnout.core.errors import InputError
from turnout.recording.journal import NAME, AnswerLine, AskedLine, Journal, State


def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(desk: Desk, tmp_path: Path) -> None:
    desk.prompts = write_prompts(tmp_path, 40)
    good = desk.server.say["good"]

    def slowly(body: dict) -> str:
        time.sleep(0.02)
        return str(good(body))

    desk.server.say["good"] = slowly
    command = arguments(desk.server, desk.prompts, desk.out, "--score", "numeric", "--concurrency", "3")
    process = subprocess.Popen([sys.executable, "-m", "turnout", *command], stdout=subprocess.DEVNULL)
    journal = desk.out / NAME
    deadline_s = time.monotonic() + 60
    while len(desk.server.seen) < 25 and time.monotonic() < deadline_s:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    desk.server.say["good"] = good
    time.sleep(0.1)
    answered = {
        tuple(line["cell"])
        for text in journal.read_bytes().splitlines(keepends=True)
        if text.endswith(b"\n") and (line := json.loads(text))["kind"] == "answer"
    }
    assert 10 <= len(answered) < 80
    assert not (desk.out / "outcomes.parquet").exists()

    before = len(desk.server.seen)
    told = desk.record("--score", "numeric")
    calls = Counter(asked(desk.server))
    again = {call for call, number in calls.items() if number > 1}
    # Only what was on its way when the process died is asked again: no answer was lost that had been written.
    assert len(again) <= 3
    assert len(desk.server.seen) - before == 80 - len(answered)
    assert len(calls) == 80
    assert told["missing"] == 0
    assert desk.table().quality_QM[:, 0].tolist() == [1.0] * 40
    lost = sum("were cut" in note for note in told["notes"])
    assert lost == (1 if again else 0)
    # The cap counts what was lost at the most it may have cost.
    paid = 40 * (GOOD_USD + BAD_USD)
    assert paid - 1e-9 <= told["spent_usd"] <= paid + 3 * 1300 * 4 / 1e6


def test_a_second_run_of_the_same_command_asks_nobody(desk: Desk) -> None:
    told = desk.record("--score", "numeric")
    desk.server.seen.clear()
    again = desk.record("--score", "numeric")
    assert desk.server.seen == []
    assert again == told


def test_a_line_that_was_cut_is_taken_off(desk: Desk) -> None:
    desk.record("--score", "numeric")
    journal = desk.out / NAME
    journal.write_bytes(journal.read_bytes() + b'{"kind":"answer","cell":["q0","go')
    desk.server.seen.clear()
    desk.record("--score", "numeric")
    assert desk.server.seen == []
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--temperature", "0.5"), "asked with another temperature"),
        (("--max-output-tokens", "7"), "asked with another max_output_tokens"),
        (("--system", "Be brief."), "asked with another system"),
    ],
)
def test_a_run_that_asks_otherwise_is_refused(desk: Desk, more: tuple[str, ...], part: str) -> None:
    desk.record("--score", "numeric")
    assert part in desk.refused("--score", "numeric", *more)


def test_a_prompt_that_changed_under_its_id_is_refused(desk: Desk) -> None:
    desk.record("--score", "numeric")
    text = desk.prompts.read_text(encoding="utf-8").replace("What is 3 + 4", "Say 3 + 4")
    desk.prompts.write_text(text, encoding="utf-8")
    assert "the prompt 'q3' is another one" in desk.refused("--score", "numeric")


def test_a_file_that_is_no_journal_is_left_as_it_is(desk: Desk) -> None:
    desk.out.mkdir()
    foreign = b'{"kind":"head","version":1,"asking":{}}\n{"something": "else"}\n'
    (desk.out / NAME).write_bytes(foreign)
    assert "line 2, is no line of a journal" in desk.refused("--score", "numeric")
    assert (desk.out / NAME).read_bytes() == foreign


def test_a_table_of_somebody_elses_is_not_written_over(desk: Desk) -> None:
    desk.record("--score", "numeric")
    (desk.out / NAME).unlink()
    before = (desk.out / "outcomes.parquet").read_bytes()
    assert "was not recorded there" in desk.refused("--score", "exact")
    assert (desk.out / "outcomes.parquet").read_bytes() == before


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / NAME), Journal(tmp_path / NAME)
    first.open({"system": None})
    with pytest.raises(InputError, match="in use by another run"):
        second.open({"system": None})
    first.close()
    second.open({"system": None})
    second.close()


def test_a_call_without_an_end_counts_once_at_its_most() -> None:
    cell = ("q", "m", 0)
    answer = AnswerLine(
        cell=cell, prompt="p", text="a", error=None, attempts=1, charged_usd=0.2, is_final=True
    )
    state = State()
    state.take([AskedLine(cell=cell, purpose="answer", most_usd=1.0)])
    assert (state.spent_usd, state.lost) == (1.0, 1)
    state = State()
    state.take([AskedLine(cell=cell, purpose="answer", most_usd=1.0), answer])
    assert (state.spent_usd, state.lost) == (0.2, 0)
