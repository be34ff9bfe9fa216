"""A server whose models do sums, well or badly, and what a recording of them is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway.scripted import Scripted, scripted_server
from turnout.cli.main import main
from turnout.core import OutcomeTable

PRICE = ("--price", "good=1/4", "--price", "bad=0.1/0.4")
JUDGED = ("--score", "judge", "--judge", "judge", "--price", "judge=1/4")
GOOD_USD = (100 * 1 + 10 * 4) / 1e6
"""What one answer of `good` costs: 100 tokens in, 10 out."""
BAD_USD = GOOD_USD / 10


def question_of(body: dict) -> str:
    return str(body["messages"][-1]["content"])


def good(body: dict) -> str:
    """Add the numbers of the question."""
    numbers = re.findall(r"\d+", question_of(body))
    return f"That makes {sum(map(int, numbers))}."


@contextmanager
def sums() -> Iterator[Scripted]:
    with scripted_server() as server:
        server.say = {"good": good, "bad": lambda _: "That makes 1.", "judge": lambda _: "Fine.\nScore: 7"}
        yield server


def write_prompts(folder: Path, number: int = 6) -> Path:
    path = folder / "prompts.jsonl"
    rows = [
        {"id": f"q{i}", "text": f"What is {i} + {i + 1}?", "reference": 2 * i + 1, "task": "sums"}
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arguments(server: Scripted, prompts: Path, out: Path, *more: str) -> list[str]:
    return [
        "record", str(prompts), "--out", str(out), "--base-url", server.base_url,
        "--model", "good", "--model", "bad", *PRICE, "--json", *more,
    ]  # fmt: skip


class Desk:
    """Runs the command in this process."""

    def __init__(self, server: Scripted, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self.folder, self.capsys = server, folder, capsys
        self.out = folder / "out"
        self.prompts = write_prompts(folder)

    def record(self, *more: str, status: int = 0) -> dict:
        """Run to this exit status, and return what it told."""
        assert main(arguments(self.server, self.prompts, self.out, *more)) == status
        told: dict = json.loads(self.capsys.readouterr().out)
        return told

    def refused(self, *more: str) -> str:
        """Run, and return the sentence of the refusal."""
        assert main(arguments(self.server, self.prompts, self.out, *more)) == 1
        return self.capsys.readouterr().err

    def table(self) -> OutcomeTable:
        return OutcomeTable.load(self.out)


def by_name(told: dict, name: str) -> dict:
    return next(line for line in told["candidates"] if line["candidate"] == name)


def asked(server: Scripted, models: Sequence[str] = ("good", "bad")) -> list[tuple[str, str]]:
    """Return (model, question) of every call."""
    return [(body["model"], question_of(body)) for body in server.seen if body["model"] in models]
