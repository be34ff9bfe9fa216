"""A table survives the disk, and a file that breaks the layout is named with its column and row."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from tests.core.tables import hand_table, tables
from turnout.core.candidate import Candidate
from turnout.core.errors import TableError
from turnout.core.outcomes import OutcomeTable
from turnout.core.parquet import table_from_arrow
from turnout.core.query import Query

QUERIES: dict[str, Any] = {"query_id": ["a", "b"], "text": ["x", None]}
OUTCOMES: dict[str, Any] = {"query_id": ["a", "b"], "model": ["owl", "ant"], "quality": [1.0, None]}
MODELS: dict[str, Any] = {
    "model": ["owl", "ant"],
    "input_usd_per_m": [1.0, None],
    "output_usd_per_m": [2.0, 3.0],
}


def write(folder: Path, queries: Any = QUERIES, outcomes: Any = OUTCOMES, models: Any = MODELS) -> Path:
    for name, columns in (("queries", queries), ("outcomes", outcomes), ("models", models)):
        if columns is not None:
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@given(tables())
@settings(max_examples=40)
def test_a_table_survives_the_disk(table: OutcomeTable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = OutcomeTable.load(table.save(Path(folder) / "new" / "deep"))
    assert again.fingerprint == table.fingerprint
    assert again.queries == table.queries
    assert again.candidates == table.candidates
    assert again.splits == table.splits


def test_extras_survive_the_disk(tmp_path: Path) -> None:
    table = hand_table(extras={"answer": ["4", None, "", "x", "y"], "votes": [[1], [2], [], [3, 4], [5]]})
    again = OutcomeTable.load(table.save(tmp_path))
    assert list(again.extras["answer"]) == ["4", None, "", "x", "y"]
    assert list(again.extras["votes"]) == [[1], [2], [], [3, 4], [5]]


def test_a_foreign_folder_is_read_with_what_it_has(tmp_path: Path) -> None:
    models = {
        **MODELS,
        "context_window": [8192, None],
        "params_b": [7.0, float("nan")],
        "open": [None, "yes"],
    }
    table = OutcomeTable.load(write(tmp_path, models=models))
    owl, ant = table.candidates
    assert owl.price_card is not None
    assert owl.price_card.output_usd_per_mtok == 2.0
    assert ant.price_card is None
    assert (owl.context_tokens, ant.context_tokens) == (8192, None)
    assert owl.descriptors == {"params_b": 7.0}
    assert ant.descriptors == {"open": "yes"}
    np.testing.assert_array_equal(table.quality, [1.0, np.nan])
    assert table.queries[1].text is None


def test_the_models_file_may_be_missing(tmp_path: Path) -> None:
    assert OutcomeTable.load(write(tmp_path, models=None)).names == ("owl", "ant")


def test_a_model_without_an_outcome_is_still_a_candidate(tmp_path: Path) -> None:
    models = {"model": ["elk", "owl", "ant"]}
    assert OutcomeTable.load(write(tmp_path, models=models)).names == ("elk", "owl", "ant")


def test_a_null_sample_is_the_first(tmp_path: Path) -> None:
    outcomes = {**OUTCOMES, "sample": pa.array([None, 3], pa.int64())}
    np.testing.assert_array_equal(OutcomeTable.load(write(tmp_path, outcomes=outcomes)).sample, [0, 3])


@pytest.mark.parametrize("missing", ["queries", "outcomes"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    (write(tmp_path) / f"{missing}.parquet").unlink()
    with pytest.raises(TableError, match=f"the file '{missing}.parquet' is missing in "):
        OutcomeTable.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"no outcome table at '.*nowhere'; allowed: a folder; check the path"
    ):
        OutcomeTable.load(tmp_path / "nowhere")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "outcomes.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(
        TableError, match=r"outcomes.parquet' cannot be read as parquet; got: .*; write or download"
    ):
        OutcomeTable.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"queries": {"text": ["x"]}},
            r"queries.parquet' lacks the column 'query_id'; allowed: columns query_id",
        ),
        ({"outcomes": {"query_id": ["a"], "model": ["owl"]}}, "outcomes.parquet' lacks the column 'quality'"),
        ({"models": {"name": ["owl"]}}, "models.parquet' lacks the column 'model'"),
        ({"queries": {"query_id": ["a", None]}}, "column 'query_id', row 1; allowed: a string"),
        ({"queries": {"query_id": [1, 2]}}, "column 'query_id', row 0; allowed: a string; got: 1"),
        (
            {"outcomes": {**OUTCOMES, "model": ["owl", None]}},
            "column 'model', row 1; allowed: a string.*; write the",
        ),
        (
            {"outcomes": {**OUTCOMES, "query_id": ["a", "z"]}},
            r"row 1 names a query that queries.parquet does not hold; .*; got: 'z'; add the query",
        ),
        (
            {"outcomes": {**OUTCOMES, "quality": ["good", "bad"]}},
            "column 'quality'; allowed: a column of numbers; got: 'string'",
        ),
        (
            {"outcomes": {**OUTCOMES, "quality": [True, False]}},
            "column 'quality'; allowed: a column of numbers; got: 'bool'",
        ),
        (
            {"outcomes": {**OUTCOMES, "quality": [1.0, float("nan")]}},
            "column 'quality', row 1, is NaN; allowed: a number, or null",
        ),
        (
            {"outcomes": {**OUTCOMES, "quality": [1.0, 7.0]}},
            r"quality in row 1 \(query 'b', candidate 'ant'\)",
        ),
        (
            {"queries": {**QUERIES, "tags": ["{}", "{"]}},
            "column 'tags', row 1; allowed: a JSON object; got: '{'",
        ),
        (
            {"queries": {**QUERIES, "tags": ["[1]", None]}},
            r"column 'tags', row 0; allowed: a JSON object; got: '\[1\]'",
        ),
        (
            {"models": {**MODELS, "model": ["owl", "owl"]}},
            r"models.parquet describes a model twice; allowed: one row a model; got: 'owl'; keep",
        ),
        (
            {"models": {**MODELS, "candidate": ["{]", None]}},
            "column 'candidate' of 'owl'; allowed: a JSON object",
        ),
        (
            {"models": {**MODELS, "candidate": pa.array([3, None])}},
            "column 'candidate' of 'owl'; allowed: a JSON object; got: 3",
        ),
    ],
)
def test_a_broken_layout_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        OutcomeTable.load(write(tmp_path, **changes))


def test_a_negative_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"a price of 'owl'; allowed: .*; got: -1.0; write null where"):
        OutcomeTable.load(write(tmp_path, models={**MODELS, "input_usd_per_m": [-1.0, None]}))


def test_half_a_surrogate_pair_is_not_written(tmp_path: Path) -> None:
    table = OutcomeTable(
        queries=[Query(id="q", text="\ud800 half")],
        candidates=[Candidate(model="owl")],
        query_index=[0],
        candidate_index=[0],
        quality=[1.0],
    )
    with pytest.raises(
        TableError, match=r"the text of query 'q' is not valid Unicode; got: '\\ud800'; replace it"
    ):
        table.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_arrow_tables_can_be_read_without_a_disk() -> None:
    table = table_from_arrow(pa.table(QUERIES), pa.table(OUTCOMES), None, where="memory")
    assert table.names == ("owl", "ant")
