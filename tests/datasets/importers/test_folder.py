"""A folder of parquet files is read, and what is wrong with it is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.datasets.tables import check_sentence
from turnout.core import TableError
from turnout.datasets import load, synthetic


@pytest.mark.parametrize("name", ["reason18", "open9"])
def test_a_table_survives_saving_and_loading(name: str, tmp_path: Path) -> None:
    table = load(name)
    again = load(table.save(tmp_path / "copy"))
    assert again.fingerprint == table.fingerprint
    assert {n: list(v) for n, v in again.extras.items()} == {n: list(v) for n, v in table.extras.items()}


def test_responses_are_joined_when_asked_for(tmp_path: Path) -> None:
    table = synthetic(num_queries=3, num_candidates=2, num_samples=2).table
    folder = table.save(tmp_path / "t")
    columns = {
        "query_id": ["q1", "q1"],
        "model": ["model0", "model0"],
        "sample": [1, 0],
        "response": ["b", "a"],
    }
    pq.write_table(pa.table(columns), folder / "responses.parquet")
    assert "response" not in load(folder).extras
    joined = load(folder, responses=True)
    found = {
        (table.queries[q].id, joined.names[m], int(s)): response
        for q, m, s, response in zip(
            joined.query_index, joined.candidate_index, joined.sample, joined.extras["response"], strict=True
        )
        if response is not None
    }
    assert found == {("q1", "model0", 0): "a", ("q1", "model0", 1): "b"}
    assert joined.fingerprint == table.fingerprint


def test_a_table_without_outcomes_is_said_to_be_empty(tmp_path: Path) -> None:
    folder = synthetic(num_queries=3).table.save(tmp_path / "t")
    outcomes = pq.read_table(folder / "outcomes.parquet")
    pq.write_table(outcomes.slice(0, 0), folder / "outcomes.parquet")
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, "outcomes.parquet' is empty; allowed: at least one row", "got: '0 rows'; check")


def test_asking_for_responses_that_are_not_there_is_an_error(tmp_path: Path) -> None:
    folder = synthetic(num_queries=3).table.save(tmp_path / "t")
    with pytest.raises(TableError, match=r"'responses\.parquet' is missing in"):
        load(folder, responses=True)


def broken(folder: Path, file: str, **columns: object) -> Path:
    """Save a small table and replace columns of one of its files (None drops one)."""
    synthetic(num_queries=4, num_candidates=2).table.save(folder)
    data = pq.read_table(folder / file)
    for name, values in columns.items():
        if name in data.column_names:
            data = data.drop_columns([name])
        if values is not None:
            data = data.append_column(name, pa.array(values))
    pq.write_table(data, folder / file)
    return folder


BAD_TABLES: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "no quality": ("outcomes.parquet", {"quality": None}, ("outcomes.parquet' lacks the column 'quality'",)),
    "no query id": ("queries.parquet", {"query_id": None}, ("queries.parquet' lacks the column 'query_id'",)),
    "text for quality": (
        "outcomes.parquet",
        {"quality": ["good"] * 8},
        ("outcomes.parquet: column 'quality'", "allowed: a column of numbers", "string"),
    ),
    "quality above one": (
        "outcomes.parquet",
        {"quality": [0.5, 1.5] + [0.0] * 6},
        ("quality in row 1", "'q0'", "'model1'", "[0, 1]", "got: 1.5"),
    ),
    "quality infinite": (
        "outcomes.parquet",
        {"quality": [float("inf")] + [0.0] * 7},
        ("quality in row 0", "got: inf"),
    ),
    "cost below zero": (
        "outcomes.parquet",
        {"cost_usd": [-1.0] + [0.0] * 7},
        ("cost_usd in row 0", "at least 0", "got: -1.0"),
    ),
    "a repeated row": (
        "outcomes.parquet",
        {"model": ["model0", "model0", *["model0", "model1"] * 3]},
        ("repeats (query 'q0', candidate 'model0', sample 0)", "allowed: every"),
    ),
    "a query from nowhere": (
        "outcomes.parquet",
        {"query_id": ["q0"] * 2 + ["lost"] * 2 + ["q1"] * 2 + ["q2"] * 2},
        ("outcomes.parquet: row 2 names a query", "got: 'lost'"),
    ),
    "a number for an id": (
        "queries.parquet",
        {"query_id": [0, 1, 2, 3]},
        ("column 'query_id', row 0", "a string"),
    ),
    "a null model": (
        "outcomes.parquet",
        {"model": [None] + ["model0"] * 7},
        ("column 'model', row 0", "allowed: a string"),
    ),
    "tags that are no json": ("queries.parquet", {"tags": ["{"] * 4}, ("tags",)),
    "a candidate that is none": (
        "models.parquet",
        {"candidate": ['{"made": 1}'] * 2},
        ("cannot be read", "made"),
    ),
    "a price below zero": (
        "models.parquet",
        {"candidate": None, "input_usd_per_m": [-1.0, 1.0]},
        ("a price of 'model0'", "got: -1.0"),
    ),
}


@pytest.mark.parametrize(("file", "columns", "parts"), BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_a_wrong_folder_is_named(
    tmp_path: Path, file: str, columns: dict[str, object], parts: tuple[str, ...]
) -> None:
    folder = broken(tmp_path / "t", file, **columns)
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), *parts)


def test_a_query_that_stands_twice_is_named(tmp_path: Path) -> None:
    folder = synthetic(num_queries=4).table.save(tmp_path / "t")
    data = pq.read_table(folder / "queries.parquet")
    pq.write_table(pa.concat_tables([data, data.slice(2, 1)]), folder / "queries.parquet")
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), "every id once", "got: 'q2'")


def test_unknown_values_are_null_on_disk_and_unknown_in_memory(tmp_path: Path) -> None:
    folder = broken(tmp_path / "t", "outcomes.parquet", quality=[None] * 7 + [1.0], latency_s=None)
    table = load(folder)
    assert np.isnan(table.quality[:7]).all()
    assert np.isnan(table.latency_s).all()
    assert table.observed_QM.sum() == 1


def test_further_columns_become_extras(tmp_path: Path) -> None:
    folder = broken(tmp_path / "t", "outcomes.parquet", judge=["a"] * 8)
    assert list(load(folder).extras["judge"]) == ["a"] * 8


@pytest.mark.parametrize("file", ["queries.parquet", "outcomes.parquet", "models.parquet"])
def test_a_damaged_parquet_is_named(tmp_path: Path, file: str) -> None:
    folder = synthetic(num_queries=50).table.save(tmp_path / "t")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, f"{file}' cannot be read as parquet", "got: ", "write or download it again")


def test_text_that_is_not_utf8_in_parquet_is_named(tmp_path: Path) -> None:
    folder = synthetic(num_queries=2).table.save(tmp_path / "t")
    raw = pa.array([b"caf\xe9", b"ok"], pa.binary()).view(pa.string())
    data = pq.read_table(folder / "queries.parquet").drop_columns(["text"]).append_column("text", raw)
    pq.write_table(data, folder / "queries.parquet")
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), "cannot be read", "utf-8")
