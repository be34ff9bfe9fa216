"""This module makes a skipped test a failed one where `TURNOUT_NO_SKIPS` is set, as `.ci/run` does.

A part that is missing there (a browser, a server, an extra) would otherwise take its tests along in silence.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

MAY_SKIP = {
    "tests/nn/executors/test_triton.py": "Triton is a wheel of 286 MB; make test-triton installs it",
    "tests/nn/gates/test_contract.py": "a promise that a gate does not make is no promise to keep",
}
"""Files whose tests may be skipped all the same, and why."""


def _failed(report: Any) -> None:
    """Turn a skip into a failure that says what was missing."""
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if not is_skip or not os.environ.get("TURNOUT_NO_SKIPS") or report.nodeid.split("::")[0] in MAY_SKIP:
        return
    why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{why} (nothing may be skipped here: provide what is missing, see tests/no_skips.py)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Look at the report of a test."""
    report = yield
    _failed(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Look at the report of a file, which may be skipped as a whole."""
    report = yield
    _failed(report)
    return report
