"""This module runs the tests of classes while each class is altered, and keeps which tests noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

# In a process that has imported much already, what is not rewritten is no matter.
QUIET = (
    *("-q", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--no-summary"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)


class Mutation:
    """Alters the class whose tests run, and keeps which of them noticed.

    `kinds` are classes by the name of their module; the tests of `NAME` stand in `test_NAME.py`.
    """

    def __init__(
        self, kinds: dict[str, type[Any]], alter: Callable[[type[Any]], AbstractContextManager[object]]
    ) -> None:
        self.kinds = kinds
        self.alter = alter
        self.passed: dict[str, int] = dict.fromkeys(kinds, 0)
        self.noticed: dict[str, list[str]] = {module: [] for module in kinds}

    def run(self, paths: Iterable[Path]) -> dict[str, tuple[list[str], int]]:
        """Run the tests of these files; return for each module which noticed, and how many ran."""
        pytest.main([*QUIET, *(str(path) for path in paths if path.exists())], [self])
        return {
            module: (noticed, len(noticed) + self.passed[module]) for module, noticed in self.noticed.items()
        }

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        """Run one test with the altered class."""
        with self.alter(self.kinds[_module(item.nodeid)]):
            return (yield)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Sort one test."""
        module = _module(report.nodeid)
        if report.failed:
            self.noticed[module].append(report.nodeid.rpartition("::")[2])
        elif report.when == "call" and report.passed:
            self.passed[module] += 1


def line(who: str, noticed: list[str], total: int) -> str:
    """Return what is printed of one class."""
    return f"{who}: {len(noticed)} of {total} tests noticed{'' if noticed else '  <- NONE'}"


def _module(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
