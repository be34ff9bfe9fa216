"""A fresh server and an empty folder for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recording.desk import Desk, sums


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with sums() as server:
        yield Desk(server, tmp_path, capsys)
