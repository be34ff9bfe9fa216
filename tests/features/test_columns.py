"""Columns: numbers of tags, what is missing or odd, and routers that read them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.errors import InputError
from turnout.features import ColumnsEmbedder, JoinedEmbedder, TextEmbedder
from turnout.routers import RidgeRouter, registry


def query(number: int, tag: str | None, name: str = "signals") -> Query:
    return Query(id=f"q{number}", text="the same words", tags={} if tag is None else {name: tag})


def test_numbers_are_standardised_and_what_is_missing_is_the_mean() -> None:
    queries = [query(0, "1, 5"), query(1, "3 5"), query(2, None)]
    x_QF = ColumnsEmbedder().fit(queries).embed(queries)
    np.testing.assert_allclose(
        x_QF, np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]) / np.sqrt(2.0), atol=1e-6
    )
    far = ColumnsEmbedder(limit=2.0).fit(queries).embed([query(3, "1e6 5")])
    np.testing.assert_allclose(far, [[2.0 / np.sqrt(2.0), 0.0]], atol=1e-6)


def test_several_tags_stand_side_by_side_and_none_is_one_zero() -> None:
    both = [
        Query(id="a", text="", tags={"one": "1", "two": "4 0"}),
        Query(id="b", text="", tags={"one": "3"}),
    ]
    x_QF = ColumnsEmbedder(names=("two", "one")).fit(both).embed(both)
    assert x_QF.shape == (2, 3)
    assert (x_QF[:, 2] != 0.0).all()
    np.testing.assert_array_equal(x_QF[1, :2], 0.0)
    blank = ColumnsEmbedder().fit([query(0, None)])
    np.testing.assert_array_equal(blank.embed([query(0, None)]), [[0.0]])


@pytest.mark.parametrize("tag", ["one", "nan", "1 inf"])
def test_what_is_no_number_is_named_with_its_query(tag: str) -> None:
    with pytest.raises(InputError, match=r"tag 'signals' of query 'q7'.*finite numbers"):
        ColumnsEmbedder().fit([query(7, tag)])


def test_more_or_fewer_numbers_than_in_training_are_refused() -> None:
    columns = ColumnsEmbedder().fit([query(0, "1 2"), query(1, "2 1")])
    with pytest.raises(InputError, match="2 numbers, as in the training queries"):
        columns.embed([query(2, "1 2 3")])
    with pytest.raises(InputError, match=r"ColumnsEmbedder\.names"):
        ColumnsEmbedder(names=())


def probed(num: int, *, seed: int) -> OutcomeTable:
    """Return a table whose texts say nothing: layer two of the hidden states says who is right."""
    rng = np.random.default_rng(seed)
    state_QLD = rng.normal(size=(num, 3, 4))
    is_hard_Q = state_QLD[:, 1, 0] > 0.0
    quality_QM = np.where(is_hard_Q[:, None], [0.1, 0.9], [0.9, 0.6])
    texts = [" ".join(f"{value:.3f}" for value in state.ravel()) for state in state_QLD]
    return OutcomeTable(
        queries=[query(i, text, "hidden") for i, text in enumerate(texts)],
        candidates=[Candidate(model="small"), Candidate(model="large")],
        query_index=np.repeat(np.arange(num), 2), candidate_index=np.tile([0, 1], num),
        quality=quality_QM.ravel(),
    )  # fmt: skip


def test_recorded_hidden_states_reach_a_router_as_columns() -> None:
    train, test = probed(400, seed=0), probed(200, seed=1)
    best = test.quality_QM.argmax(axis=1)
    columns = ColumnsEmbedder(names=("hidden",), num_layers=3)
    for embedder in (columns, JoinedEmbedder(embedders=(TextEmbedder(num_features=8), columns.clone()))):
        found_QM = RidgeRouter(embedder=embedder).fit(train).estimate(test.queries).quality_QM
        assert (found_QM.argmax(axis=1) == best).mean() > 0.75
    blind_QM = RidgeRouter(embedder=TextEmbedder(num_features=8)).fit(train).estimate(test.queries).quality_QM
    assert len(set(blind_QM.argmax(axis=1).tolist())) == 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the probe learns with torch")
def test_the_probe_finds_the_layer_that_knows() -> None:
    probe = registry.get("probe")(embedder=ColumnsEmbedder(names=("hidden",), num_layers=3))
    probe.fit(probed(600, seed=0))
    assert probe.shares_L.argmax() == 1
    assert probe.shares_L[1] > 0.5
