"""Long work reports to whoever listens, and by default to nobody."""

from __future__ import annotations

import pytest

from turnout.core.progress import Progress, silent


def test_silence_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report: Progress = silent
    report("fitting", 1, 3)
    assert capsys.readouterr() == ("", "")
