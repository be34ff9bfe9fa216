"""This module makes a skipped test a failed one where `TURNOUT_NO_SKIPS` is set, as `.ci/run` does.

A part that is missing there (a server, an extra) would otherwise take its tests along in silence.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

MAY_SKIP = {
    "tests/nn/executors/test_triton.py": "Triton is a wheel of 286 MB; make test-triton installs it",
    "tests/nn/executors/test_triton_rows.py": "the same",
    "tests/nn/test_best.py": "the same",
    "tests/nn/test_late_kernel.py": "the same",
    "tests/nn/gates/test_contract.py": "a promise that a gate does not make is no promise to keep",
    "tests/contracts/test_contracts.py": "the same of other classes, and of those made of fitted parts",
    "tests/gateway/clients/test_langchain.py": "langchain's tests leave out what a model cannot do",
    "tests/gateway/clients/test_node.py": "node is no part of Python; scripts/node says where it is missing",
    "tests/gateway/ui/test_browser.py": "Debian's chromium needs root to install, and scripts/system says so",
    "tests/datasets/test_reading.py::test_a_file_that_may_not_be_opened_is_named": "root may open any file",
    "tests/features/test_onnx.py::test_the_extra_is_named": "the extra is installed",
    "tests/features/test_sentence.py::test_the_extra_is_named": "the extra is installed",
}
"""Files and tests that may be skipped all the same, and why."""


def _may_skip(nodeid: str) -> bool:
    # The wheel's tests run from another folder, so their names begin with the way to this one.
    name = nodeid[max(nodeid.find("tests/"), 0) :]
    return any(name == known or name.startswith((f"{known}::", f"{known}[")) for known in MAY_SKIP)


def _failed(report: Any) -> None:
    """Turn a skip into a failure that says what was missing."""
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if not is_skip or not os.environ.get("TURNOUT_NO_SKIPS") or _may_skip(report.nodeid):
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
