"""Programs and judges: what they say counts, and what cannot be read is unknown and never zero."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.recording.desk import JUDGED, Desk, by_name, question_of
from turnout.recording.judging import TEMPLATE, fill, read_score
from turnout.recording.prompts import Prompt
from turnout.recording.scoring import Answered, ProgramScorer, ReferenceScorer, Score

PROMPT = Prompt(
    id="q1",
    messages=({"role": "user", "content": "Say {answer}."},),
    text="Say {answer}.",
    references=("yes", "oui"),
    more={"level": 3},
)


def score(code: str, text: str = "an answer", timeout_s: float = 20.0) -> Score:
    """Run a program of Python over one answer."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    answered = Answered(prompt=PROMPT, candidate="m", sample=2, text=text)

    async def main() -> Score:
        return await ProgramScorer(command, timeout_s=timeout_s).score(answered)

    return asyncio.run(main())


def test_a_program_reads_everything_and_prints_a_score() -> None:
    code = (
        "import json, sys; told = json.load(sys.stdin);"
        "right = told['answer'] == 'oui' and told['references'] == ['yes', 'oui'] and told['id'] == 'q1'"
        " and told['more'] == {'level': 3} and told['candidate'] == 'm' and told['sample'] == 2;"
        "print(1 if right else 0)"
    )
    assert score(code, "oui") == Score(quality=1.0)
    assert score(code, "non").quality == 0.0
    found = score('print(\'{"score": 0.25, "why": "so"}\')')
    assert (found.quality, json.loads(found.said or "")["why"]) == (0.25, "so")


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("print('great')", "a number from 0 to 1"),
        ("print(1.5)", "a number from 0 to 1"),
        ("print('nan')", "a number from 0 to 1"),
        ("print(float('nan'))", "a number from 0 to 1"),
        ("", "a number from 0 to 1"),
        ("raise SystemExit('no such thing')", "status 1: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", "status -9"),
        ("import sys; sys.stdout.write('9' * 10**6)", "a number from 0 to 1"),
    ],
)
def test_a_program_that_gives_no_score_leaves_it_unknown(code: str, part: str) -> None:
    found = score(code)
    assert found.quality is None
    assert part in (found.error or "")


def test_a_program_is_ended_in_time_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started_s = time.monotonic()
    found = score(code, timeout_s=0.5)
    assert time.monotonic() - started_s < 1.5
    assert found.quality is None
    assert "not done in 0.5 s" in (found.error or "")
    time.sleep(1.8)
    assert not mark.exists()


def test_a_program_that_reads_nothing_of_a_long_answer_may_score_it() -> None:
    assert score("print(0.5)", "x" * 2_000_000).quality == 0.5


def test_a_program_that_is_not_there_is_tried_again() -> None:
    async def main() -> Score:
        scorer = ProgramScorer("no-such-program-here")
        return await scorer.score(Answered(prompt=PROMPT, candidate="m", sample=0, text="x"))

    found = asyncio.run(main())
    assert (found.quality, found.is_final) == (None, False)


def test_the_best_of_several_references_counts() -> None:
    scorer = ReferenceScorer("exact")
    found = asyncio.run(scorer.score(Answered(prompt=PROMPT, candidate="m", sample=0, text="oui")))
    assert found.quality == 1.0


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("It is right.\nScore: 10", 1.0),
        ("Score: 0", 0.0),
        ("Wrong.\n\nScore: 7.5\n", 0.75),
        ("Score: 11", None),
        ("Score: 7/10", None),
        ("Score: -1", None),
        ("score: 7", None),
        ("**Score: 7**", None),
        ("Score: 7\nThat is all.", None),
        ("7", None),
        ("", None),
    ],
)
def test_a_judge_is_read_strictly(text: str, quality: float | None) -> None:
    assert read_score(text) == quality


def test_braces_of_an_answer_are_no_fields() -> None:
    told = fill(TEMPLATE, Answered(prompt=PROMPT, candidate="m", sample=0, text="{reference} {question}"))
    assert "[Question]\nSay {answer}.\n" in told
    assert "[Answer to grade]\n{reference} {question}\n" in told
    assert "[Reference answer]\nyes or oui\n" in told


def test_a_judge_sees_one_answer_at_a_time_and_its_words_are_kept(desk: Desk) -> None:
    told = desk.record(*JUDGED)
    assert [line["quality"] for line in told["candidates"]] == pytest.approx([0.7, 0.7])
    asked = [question_of(body) for body in desk.server.asked("judge")]
    assert len(asked) == 12
    assert all(text.count("That makes") == 1 for text in asked)
    table = desk.table()
    assert (np.array(table.extras["scoring_usd"]) > 0).all()
    # The judge's price is no cost of the candidate's.
    assert table.cost_usd_QM[0, 1] < min(table.extras["scoring_usd"])


def test_what_a_judge_says_that_is_no_score_is_unknown_and_asked_once(desk: Desk) -> None:
    desk.server.say["judge"] = lambda body: "Ten!" if "makes 1." in str(body) else "Score: 9"
    told = desk.record(*JUDGED)
    # "That makes 1." is also what the right one says about 0 + 1.
    assert by_name(told, "bad")["unscored"] == 6
    assert by_name(told, "good")["unscored"] == 1
    table = desk.table()
    assert np.isnan(table.quality_QM[:, 1]).all()
    assert "Score: N" in str(table.extras["score_error"][1])
    calls = len(desk.server.asked("judge"))
    desk.record(*JUDGED)
    assert len(desk.server.asked("judge")) == calls


def test_a_judge_that_is_down_is_asked_again_by_the_next_run(desk: Desk) -> None:
    desk.server.say["judge"] = lambda _: 500
    told = desk.record(*JUDGED, "--retries", "0", status=1)
    assert by_name(told, "good")["unscored"] == 6
    desk.server.say["judge"] = lambda _: "Score: 5"
    told = desk.record(*JUDGED)
    assert by_name(told, "good")["quality"] == 0.5
    assert len(desk.server.asked("good")) == 6


def test_another_prompt_of_the_judge_judges_anew(desk: Desk, tmp_path: Path) -> None:
    desk.record(*JUDGED)
    template = tmp_path / "judge.txt"
    template.write_text("Is {answer} right for {question}?", encoding="utf-8")
    desk.record(*JUDGED, "--judge-prompt", str(template), "--judge-temperature", "0")
    assert len(desk.server.asked("judge")) == 24
    last = desk.server.asked("judge")[-1]
    assert last["temperature"] == 0
    assert question_of(last).startswith("Is That makes")
    assert len(desk.server.asked("good")) == 6
    template.write_text("Is {answer} right?", encoding="utf-8")
    assert "add {question}" in desk.refused(*JUDGED, "--judge-prompt", str(template))
