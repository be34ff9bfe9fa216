"""Tables are found by name or path, and an unknown name gets a suggestion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnout
from tests.datasets.tables import FIXTURES, check_sentence
from turnout.core import InputError, OutcomeTable, UnknownNameError
from turnout.datasets import load, names, read, synthetic

BUNDLED = {
    "reason18": (2119, 18, 38142, 0.7825, {"gsm8k": 1319, "cruxeval": 800}),
    "open9": (3739, 9, 33651, 0.4667, None),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_hold_what_their_notice_says(name: str) -> None:
    queries, candidates, rows, mean_quality, tasks = BUNDLED[name]
    table = load(name)
    assert (len(table.queries), len(table.candidates), table.num_rows) == (queries, candidates, rows)
    assert round(float(table.quality_QM.mean()), 4) == mean_quality
    assert set(table.splits) == {"train", "test"}
    assert np.isfinite(table.cost_usd).all()
    assert np.isnan(table.latency_s).all()
    assert all(candidate.price_card is not None for candidate in table.candidates)
    assert all(query.text for query in table.queries)
    if tasks is not None:
        assert {task: table.tasks.count(task) for task in set(table.tasks)} == tasks


def test_reason18_carries_answers_and_references() -> None:
    table = load("reason18")
    assert list(table.extras) == ["answer"]
    row = next(
        n
        for n in range(table.num_rows)
        if table.queries[table.query_index[n]].id == "crux/0" and table.candidate_index[n] == 0
    )
    assert table.extras["answer"][row] == "[(4, 1), (2, 3)]"
    assert table.references[[query.id for query in table.queries].index("gsm/0")] == "18"


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_carry_their_notices(name: str) -> None:
    folder = Path(turnout.__file__).parent / "datasets" / "examples" / name
    assert "MIT License" in (folder / "NOTICE.md").read_text(encoding="utf-8")
    assert (folder / "SOURCE.md").exists()
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert ("Apache License" if name == "reason18" else "MIT License") in licence


def test_synthetic_loads_by_name() -> None:
    assert load("synthetic").fingerprint == synthetic().table.fingerprint


def test_a_foreign_file_loads_by_path() -> None:
    path = FIXTURES / "routerdc" / "mbpp.json"
    assert load(path).fingerprint == load(str(path)).fingerprint == read(path).fingerprint


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for TURNOUT_DATA with a table in each place where one is looked for."""
    for seed, name in enumerate(
        ("mine", "examples/theirs", "outcomes/old", "outcomes/mine", "outcomes/open9")
    ):
        synthetic(num_queries=10, seed=seed).table.save(tmp_path / name)
    (tmp_path / "outcomes" / "notes").mkdir()
    monkeypatch.setenv("TURNOUT_DATA", str(tmp_path))
    return tmp_path


def test_names_below_the_data_folder_are_found(data: Path) -> None:
    assert names() == ("open9", "reason18", "synthetic", "mine", "theirs", "old")
    assert load("theirs").fingerprint == synthetic(num_queries=10, seed=1).table.fingerprint
    assert load("old").fingerprint == synthetic(num_queries=10, seed=2).table.fingerprint
    assert load("mine").fingerprint == synthetic(num_queries=10, seed=0).table.fingerprint


def test_a_bundled_name_comes_first_and_a_path_says_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data / "outcomes")
    assert len(load("open9").queries) == 3739
    assert len(load("./open9").queries) == 10


def test_an_unknown_name_gets_a_suggestion(data: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("reason8")
    check_sentence(
        caught, "no table is called 'reason8'", "allowed: ", "TURNOUT_DATA", "did you mean 'reason18'"
    )
    with pytest.raises(UnknownNameError, match="did you mean 'theirs'"):
        load("their")


def test_a_name_that_is_bundled_and_among_the_data_is_offered_once(data: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("qqq")
    assert str(caught.value).count("open9") == 1


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_name_that_can_be_no_path_is_only_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no table is called"):
        load(name)


def test_without_the_variable_only_the_shipped_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNOUT_DATA", raising=False)
    assert names() == ("open9", "reason18", "synthetic")


def test_the_room_is_light() -> None:
    code = "import sys, turnout.datasets; print([m for m in ('pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_door_loads_tables() -> None:
    assert isinstance(turnout.load_table("reason18"), OutcomeTable)


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_name_is_told_what_to_write(wrong: Any) -> None:
    with pytest.raises(InputError, match=rf"load: the table; .*; got: {wrong}; name one, such as 'open9'"):
        load(wrong)
