"""A fingerprint names content: no order changes it, and every value does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.tables import hand_table, shuffled, tables
from turnout.core.candidate import Candidate, PriceCard
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rows import MEASURES

FULL = {"input_tokens": [1, 2, 3, 4, 5], "output_tokens": [1, 2, 3, 4, 5], "latency_s": [1, 2, 3, 4, 5]}


def test_a_fingerprint_is_sixteen_hex_digits() -> None:
    assert len(hand_table().fingerprint) == 16
    int(hand_table().fingerprint, 16)


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    # The number is part of the benchmarks' records: a change of it is a change of format.
    assert hand_table().fingerprint == "dc17bd76814a7225"


@given(tables(), st.integers(0, 2**31))
@settings(max_examples=40)
def test_no_order_of_rows_queries_or_candidates_changes_it(table: OutcomeTable, seed: int) -> None:
    assert shuffled(table, np.random.default_rng(seed)).fingerprint == table.fingerprint


@given(tables(), st.data())
@settings(max_examples=40)
def test_every_measured_value_changes_it(table: OutcomeTable, data: st.DataObject) -> None:
    if not table.num_rows:
        return
    row, name = data.draw(st.integers(0, table.num_rows - 1)), data.draw(st.sampled_from(MEASURES))
    columns: dict[str, Any] = {measure: getattr(table, measure).copy() for measure in MEASURES}
    old = columns[name][row]
    columns[name][row] = 0.5 if np.isnan(old) or old != 0.5 else np.nan
    changed = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        sample=table.sample,
        splits=table.splits,
        references=table.references,
        **columns,
    )
    assert changed.fingerprint != table.fingerprint


def with_query(**changes: Any) -> dict[str, Any]:
    queries = list(hand_table().queries)
    return {"queries": [replace(queries[0], **changes), *queries[1:]]}


def with_candidate(**changes: Any) -> dict[str, Any]:
    pool = hand_table().candidates
    return {"candidates": [replace(pool[0], **changes), *pool[1:]]}


CARD = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.5)
CHANGES: list[dict[str, Any]] = [
    *({name: values} for name, values in FULL.items()),
    {"sample": [0, 0, 0, 0, 2]},
    {"splits": ["train", "test", "test"]},
    {"references": ["4", "5", None]},
    with_query(id="q9"),
    with_query(text="two plus three"),
    with_query(text=None),
    with_query(task=None),
    with_query(num_turns=2),
    with_query(input_tokens=7),
    with_query(needs=frozenset({"tools"})),
    with_query(tags={"lang": "en"}),
    with_candidate(model="emu"),
    with_candidate(effort="low"),
    with_candidate(price_card=CARD),
    with_candidate(price_card=None),
    with_candidate(context_tokens=8192),
    with_candidate(capabilities=frozenset({"tools"})),
    with_candidate(descriptors={"params_b": 7.0}),
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: str(changes)[:60])
def test_every_other_value_changes_it(changes: dict[str, Any]) -> None:
    assert hand_table(**changes).fingerprint != hand_table().fingerprint


def test_all_changes_differ_from_each_other() -> None:
    found = [hand_table(**changes).fingerprint for changes in CHANGES]
    assert len(set(found)) == len(found)


def test_the_order_inside_a_description_does_not_change_it() -> None:
    first, second = ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0})
    tables = [hand_table(**with_candidate(descriptors=order)) for order in (first, second)]
    assert tables[0].fingerprint == tables[1].fingerprint
    tags = [
        hand_table(**with_query(tags={"x": "1", "y": "2"})),
        hand_table(**with_query(tags={"y": "2", "x": "1"})),
    ]
    assert tags[0].fingerprint == tags[1].fingerprint


def test_one_nan_is_as_good_as_another_and_minus_zero_is_zero() -> None:
    odd_nan = -np.float64(np.nan)
    first = hand_table(quality=[1.0, 0.5, np.nan, 0.25, 0.0])
    second = hand_table(quality=[1.0, 0.5, odd_nan, 0.25, -0.0])
    assert first.fingerprint == second.fingerprint


def test_extras_do_not_count() -> None:
    assert hand_table(extras={"answer": list("abcde")}).fingerprint == hand_table().fingerprint


def test_names_that_end_in_nul_are_told_apart() -> None:
    def build(order: list[str]) -> OutcomeTable:
        return OutcomeTable(
            queries=[Query(id=query_id, text=query_id) for query_id in order],
            candidates=[Candidate(model="owl")],
            query_index=[0, 1],
            candidate_index=[0, 0],
            quality=[1.0 if query_id == "a" else 0.0 for query_id in order],
        )

    assert build(["a", "a\x00"]).fingerprint == build(["a\x00", "a"]).fingerprint
