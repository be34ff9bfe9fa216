"""In CI a part that is missing fails the run; elsewhere its tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.no_skips import MAY_SKIP

FILES = {
    "test": "def test_it():\n    pytest.skip('no browser')\n",
    "fixture": "@pytest.fixture\ndef it():\n    pytest.skip('no browser')\ndef test_it(it): pass\n",
    "mark": "@pytest.mark.skipif(True, reason='no browser')\ndef test_it(): pass\n",
    "file": "pytest.skip('no browser', allow_module_level=True)\n",
}


TOLD = [({}, "4 skipped"), ({"TURNOUT_NO_SKIPS": "1"}, "1 failed, 3 errors")]


@pytest.mark.parametrize(("more", "told"), TOLD)
def test_a_skip_is_a_failure_where_nothing_may_be_skipped(
    tmp_path: Path, more: dict[str, str], told: str
) -> None:
    for kind, text in FILES.items():
        (tmp_path / f"test_{kind}.py").write_text(f"import pytest\n{text}", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.no_skips", "-p", "no:cacheprovider", "-rA"]
    done = subprocess.run(
        [*command, str(tmp_path), "-c", os.devnull, "--continue-on-collection-errors"],
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1].startswith(told), done.stdout
    assert done.stdout.count("no browser") >= 2


def test_ci_asks_for_it_and_runs_what_make_test_leaves_out() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "export TURNOUT_NO_SKIPS=1" in text
    assert "test-ray" in text


def test_what_may_be_skipped_is_there() -> None:
    for name in MAY_SKIP:
        path, _, test = name.partition("::")
        assert f"def {test}" in (ROOT / path).read_text(encoding="utf-8"), name
