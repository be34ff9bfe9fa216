"""A draft becomes a table that can be saved, whatever a foreign file holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.tables import check_sentence, write
from turnout.core import Candidate, OutcomeTable, PriceCard, Query, TableError
from turnout.datasets import read
from turnout.datasets.draft import TableDraft, same_kind

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SCORES = st.none() | st.integers(0, 1) | st.floats(0.0, 1.0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(SCORES, st.dictionaries(st.sampled_from(["a", "b", "response"]), VALUES)), min_size=1)
)
def test_any_jsonl_survives_reading_saving_and_loading(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float | None, dict[str, object]]]
) -> None:
    folder = tmp_path_factory.mktemp("draft")
    records = [
        {
            "query": f"question {i % 3}",
            "model_name": f"m{i}",
            "performance": score,
            "ground_truth": "x",
            **more,
        }
        for i, (score, more) in enumerate(rows)
    ]
    path = write(folder / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    table = read(path, format_name="vllm_sr")
    again = OutcomeTable.load(table.save(folder / "t"))
    assert again.fingerprint == table.fingerprint
    assert {name: list(values) for name, values in again.extras.items()} == {
        name: list(values) for name, values in table.extras.items()
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2], [1, None, 2]),
        ([True, None], [True, None]),
        ([0.5, None], [0.5, None]),
        (["a", None], ["a", None]),
        ([1, "a", None, 0.5], ["1", "a", None, "0.5"]),
        ([True, 1], ["True", "1"]),
        ([2**63], [str(2**63)]),
        ([None], [None]),
    ],
)
def test_a_column_keeps_one_kind(values: list[object], expected: list[object]) -> None:
    kept = same_kind(values)
    assert kept == expected
    assert [type(value) for value in kept] == [type(value) for value in expected]


def test_only_candidates_with_rows_enter_the_table() -> None:
    draft = TableDraft(Path("a.jsonl"))
    query = draft.add_query("q", Query(id="q", text="hi"), place="line 1")
    draft.add(query, "m", {"quality": 1.0}, place="line 1")
    card = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    table = draft.build([Candidate(model="unused"), Candidate(model="m", price_card=card)])
    assert table.names == ("m",)
    assert table.candidates[0].price_card == card
    assert math.isnan(table.cost_usd[0])


def test_an_empty_draft_is_refused() -> None:
    with pytest.raises(TableError) as caught:
        TableDraft(Path("a.jsonl")).build()
    check_sentence(caught, "'a.jsonl' holds no outcome", "allowed: at least one row with a model")
