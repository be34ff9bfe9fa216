"""Flips: the share of requests whose choice changes with the wording; nothing where there are no pairs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.routers.tables import real_table
from turnout.routers import BestSingleRouter, KNNRouter
from turnout.training.bench.contestants import Contestant
from turnout.training.bench.rewording import PLACE, flips, read_pairs


def test_pairs_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNOUT_DATA", raising=False)
    assert read_pairs() == ([], [])
    path = tmp_path / PLACE
    path.parent.mkdir(parents=True)
    texts = {"text": ["Kindly add 2 and 2", "b"], "original_text": ["Add 2 and 2", None]}
    parquet.write_table(pa.table(texts), path)
    monkeypatch.setenv("TURNOUT_DATA", str(tmp_path))
    first, second = read_pairs()
    assert [query.text for query in first] == ["Add 2 and 2"]
    assert [query.text for query in second] == ["Kindly add 2 and 2"]


def test_a_choice_by_text_flips_and_one_without_does_not() -> None:
    table = real_table()
    single = Contestant(router=BestSingleRouter().fit(table), saved=None)
    near = Contestant(router=KNNRouter(k=1, prior=0.0).fit(table), saved=None)
    queries = list(table.queries[:40])
    other = [*queries[:30], *table.queries[40:50]]
    assert flips(single, (queries, other)) == {"share": 0.0, "error": 0.0, "pairs": 40}
    found = flips(near, (queries, other))
    assert found is not None
    changed = sum(
        a != b for a, b in zip(near.decide(queries).names_Q, near.decide(other).names_Q, strict=True)
    )
    assert 0 < changed <= 10
    assert found["share"] == changed / 40
    assert flips(near, ([], [])) is None
