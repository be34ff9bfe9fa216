"""What the project records: tables are read when they are wanted, and tasks told to who is marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.bench_scores import judged
from tests.routers.tables import real_table
from turnout.training.bench.cell import run_cell
from turnout.training.bench.prepared import prepare, read_prepared


def test_a_table_that_is_not_wanted_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read: list[str] = []
    monkeypatch.setattr(record, "load", read.append)
    monkeypatch.setenv("TURNOUT_DATA", str(tmp_path))
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    assert [name for name, _ in record.tables("mine", "other", "absent", only=["mine", "absent"])] == ["mine"]
    assert read == ["mine"]
    # A shipped table that is named besides comes once.
    assert [name for name, _ in record.tables("open9", "mine")] == ["reason18", "open9", "mine"]


def test_scores_tell_the_task_to_nobody_who_is_not_marked(tmp_path: Path) -> None:
    place = prepare("small", real_table(), tmp_path, seed=0)
    report = judged(read_prepared(place), ("inferred_group", "group_mean"))
    errors = {}
    for name in ("inferred_group", "group_mean"):
        calibration = report[name].calibration
        assert calibration is not None
        assert calibration.every is not None
        errors[name] = calibration.every.ece
        assert errors[name] == run_cell(place, name, seed=0)["ece"]
    assert errors["inferred_group"] != run_cell(place, "inferred_group_told", seed=0)["ece"]
