"""Signals are read once, within their budget, and what fails has its stated default."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.gateway.signals.facts import facts_of
from turnout.gateway.conditions import holds
from turnout.gateway.settings_signals import KeywordSettings
from turnout.gateway.signals.base import Facts, Finding, Signal
from turnout.gateway.signals.board import _MAX_WAITING, Board


class Scripted(Signal):
    """Counts its readings, and fails or hangs as it is told."""

    def __init__(self, *, finding: bool = True, fails: bool = False, waits: threading.Event | None = None):
        self.finding, self.fails, self.waits = finding, fails, waits
        self.is_slow = waits is not None
        self.count = 0

    def read(self, facts: Facts) -> Finding:
        self.count += 1
        if self.fails:
            raise ZeroDivisionError
        if self.waits is not None:
            self.waits.wait(5)
        return Finding(holds=self.finding)


def board_of(*, default: bool = False, budget_ms: float = 20.0, **signals: Scripted) -> Board:
    own = KeywordSettings(words=["x"], default=default, budget_ms=budget_ms)
    board = Board(settings=dict.fromkeys(signals, own))
    board.signals.update(signals)
    return board


def decide(condition: Any, board: Board) -> bool:
    return asyncio.run(holds(condition, board.reader(facts_of("x"))))


YES, NO = {"finding": True}, {"finding": False}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (True, True),
        ("yes", True),
        ("no", False),
        ({"not": "no"}, True),
        ({"all": ["yes", "yes"]}, True),
        ({"all": ["yes", "no"]}, False),
        ({"any": ["no", "yes"]}, True),
        ({"any": ["no", "no"]}, False),
        ({"all": ["yes", {"any": ["no", {"not": {"all": ["yes", "no"]}}]}]}, True),
    ],
)
def test_conditions_are_boolean(condition: Any, expected: bool) -> None:
    board = board_of(yes=Scripted(**YES), no=Scripted(**NO))  # type: ignore[arg-type]
    assert decide(condition, board) is expected


def test_a_signal_is_read_once_and_only_where_the_condition_comes_to_it() -> None:
    first, second, third = Scripted(**NO), Scripted(**YES), Scripted(**YES)  # type: ignore[arg-type]
    board = board_of(first=first, second=second, third=third)
    condition = {"any": [{"all": ["first", "third"]}, {"all": [{"not": "first"}, "second"]}]}
    assert decide(condition, board)
    assert (first.count, second.count, third.count) == (1, 1, 0)


@pytest.mark.parametrize("default", [True, False])
def test_a_signal_that_raises_has_its_default(default: bool) -> None:
    board = board_of(default=default, bad=Scripted(fails=True, finding=not default))
    reading = asyncio.run(board.read("bad", facts_of("x")))
    assert (reading.finding.holds, reading.failure) == (default, "ZeroDivisionError")


@pytest.mark.parametrize("default", [True, False])
def test_a_signal_that_hangs_is_left_alone_after_its_budget(default: bool) -> None:
    release = threading.Event()
    board = board_of(default=default, budget_ms=30.0, slow=Scripted(waits=release, finding=not default))
    started_s = time.perf_counter()
    try:
        reading = asyncio.run(board.read("slow", facts_of("x")))
    finally:
        release.set()
    assert (reading.finding.holds, reading.failure) == (default, "too slow")
    assert time.perf_counter() - started_s < 2.0
    board.close()


def test_a_signal_that_hangs_does_not_pile_up_work() -> None:
    release = threading.Event()
    board = board_of(budget_ms=1.0, slow=Scripted(waits=release))

    async def crowd() -> list[str | None]:
        readings = [await board.read("slow", facts_of("x")) for _ in range(_MAX_WAITING + 3)]
        release.set()
        return [reading.failure for reading in readings]

    try:
        failures = asyncio.run(crowd())
    finally:
        release.set()
    assert failures[-3:] == ["busy"] * 3
    assert set(failures[:_MAX_WAITING]) == {"too slow"}
    board.close()
