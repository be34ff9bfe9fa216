"""A run of checks ends in a report, whatever the checked class raises."""

from __future__ import annotations

from typing import Any

import pytest

from turnout.checks import Check, CheckFailed, CheckSkipped, Report, Result, run
from turnout.checks.report import bind, require, skip
from turnout.core.errors import TurnoutError, missing_extra


def passes(subject: Any) -> None:
    require(1, subject, "never")


def fails(subject: Any) -> None:
    require(subject == 1, subject, "it is not one", allowed=1, got=subject, do="count again")


def is_not_meant(subject: Any) -> None:
    skip(subject, "it is a number")


def lacks_an_extra(subject: Any) -> None:
    raise missing_extra("torch", feature="a network", extra="nn")


def crashes(subject: Any) -> None:
    raise ZeroDivisionError("division by zero")


def test_a_run_reports_every_outcome() -> None:
    report = run(bind(7, (passes, fails, is_not_meant, lacks_an_extra), slow=(crashes,)))
    assert [result.outcome for result in report.results] == [
        "passed",
        "failed",
        "skipped",
        "skipped",
        "failed",
    ]
    assert [result.name for result in report.failed] == ["fails", "crashes"]
    assert not report.is_clean


def test_a_report_prints_one_line_per_check_and_the_counts() -> None:
    lines = str(run(bind(7, (passes, fails, crashes)))).splitlines()
    assert lines == [
        "passed  passes",
        "failed  fails: int: it is not one; allowed: 1; got: 7; count again",
        "failed  crashes: ZeroDivisionError: division by zero",
        "1 passed, 2 failed, 0 skipped",
    ]


def test_slow_checks_come_last_and_say_so() -> None:
    checks = list(bind(7, (passes,), slow=(crashes,)))
    assert [(check.name, check.is_slow) for check in checks] == [("passes", False), ("crashes", True)]


def test_a_check_can_be_called_alone() -> None:
    check = Check(name="fails", subject=7, function=fails)
    with pytest.raises(CheckFailed, match="it is not one"):
        check()


def test_a_run_of_nothing_is_not_clean() -> None:
    assert not Report(results=()).is_clean
    assert not Report(results=(Result(name="a", outcome="skipped", reason="b"),)).is_clean
    assert Report(results=(Result(name="a", outcome="passed"),)).is_clean


def test_a_broken_promise_is_an_assertion_and_a_turnout_error() -> None:
    assert issubclass(CheckFailed, AssertionError)
    assert issubclass(CheckFailed, TurnoutError)
    assert issubclass(CheckSkipped, TurnoutError)


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted(subject: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(bind(7, (interrupted,)))
