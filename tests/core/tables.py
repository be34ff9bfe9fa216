"""This module draws small outcome tables of every shape, and builds one by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rows import MEASURES


def hand_table(**changes: Any) -> OutcomeTable:
    """Return 3 queries x 2 candidates with 5 rows, one of them a repetition; `changes` replace arguments."""
    arguments: dict[str, Any] = {
        "queries": [
            Query(id="q0", text="two plus two", task="maths"),
            Query(id="q1", text="a poem", task="story"),
            Query(id="q2", text=None, task="maths"),
        ],
        "candidates": [
            Candidate(model="owl", price_card=PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)),
            Candidate(model="ant"),
        ],
        "query_index": [0, 0, 1, 2, 0],
        "candidate_index": [0, 1, 0, 1, 0],
        "sample": [0, 0, 0, 0, 1],
        "quality": [1.0, 0.5, np.nan, 0.25, 0.0],
        "cost_usd": [0.002, np.nan, 0.001, 0.003, 0.004],
        "splits": ["train", "test", "train"],
        "references": ["4", None, None],
    }
    return OutcomeTable(**{**arguments, **changes})


TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6)


@st.composite
def queries(draw: st.DrawFn) -> list[Query]:
    """Draw one to six queries with unique ids."""
    ids = draw(st.lists(NAMES.filter(lambda name: bool(name.strip())), min_size=1, max_size=6, unique=True))
    return [
        Query(
            id=query_id,
            text=draw(TEXTS),
            task=draw(st.none() | st.sampled_from(["maths", "code"])),
            num_turns=draw(st.integers(0, 3)),
            input_tokens=draw(st.none() | st.integers(0, 10_000)),
            needs=frozenset(draw(st.sets(st.sampled_from(["tools", "vision"])))),
            tags=draw(st.dictionaries(st.sampled_from(["lang", "tenant"]), NAMES, max_size=2)),
        )
        for query_id in ids
    ]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Draw one to four candidates with unique names."""
    models = draw(
        st.lists(st.sampled_from(["owl", "ant", "yak", "elk", "emu"]), min_size=1, max_size=4, unique=True)
    )
    usd = st.floats(0, 100, allow_nan=False)
    cards = st.none() | st.builds(PriceCard, input_usd_per_mtok=usd, output_usd_per_mtok=usd)
    return [
        Candidate(
            model=model,
            effort=draw(st.none() | st.sampled_from(["low", "high"])),
            price_card=draw(cards),
            context_tokens=draw(st.none() | st.integers(1, 10**6)),
            capabilities=draw(st.none() | st.frozensets(st.sampled_from(["tools", "json"]))),
            descriptors=draw(st.dictionaries(st.sampled_from(["params_b", "family"]), st.integers(0, 9))),
        )
        for model in models
    ]


@st.composite
def tables(draw: st.DrawFn) -> OutcomeTable:
    """Draw a sparse table with repetitions and unknown values."""
    asked, pool = draw(queries()), draw(candidates())
    keys = st.tuples(st.integers(0, len(asked) - 1), st.integers(0, len(pool) - 1), st.integers(0, 2))
    rows = draw(st.lists(keys, max_size=12, unique=True))
    unknown = st.just(float("nan"))
    amounts = st.floats(0, 1e6, allow_nan=False) | unknown
    shares = st.floats(0, 1, allow_nan=False) | unknown
    columns: dict[str, Any] = {
        name: [draw(shares if name == "quality" else amounts) for _ in rows] for name in MEASURES
    }
    return OutcomeTable(
        queries=asked,
        candidates=pool,
        query_index=np.array([row[0] for row in rows], np.int64),
        candidate_index=np.array([row[1] for row in rows], np.int64),
        sample=np.array([row[2] for row in rows], np.int64),
        splits=[draw(st.none() | st.sampled_from(["train", "test"])) for _ in asked],
        references=[draw(TEXTS) for _ in asked],
        **columns,
    )


def shuffled(table: OutcomeTable, rng: np.random.Generator) -> OutcomeTable:
    """Return the same outcomes with rows, queries and candidates in a random order."""
    row = rng.permutation(table.num_rows)
    query, candidate = rng.permutation(len(table.queries)), rng.permutation(len(table.candidates))
    measured: dict[str, Any] = {name: getattr(table, name)[row] for name in MEASURES}
    return OutcomeTable(
        queries=[table.queries[index] for index in query],
        candidates=[table.candidates[index] for index in candidate],
        query_index=np.argsort(query)[table.query_index[row]],
        candidate_index=np.argsort(candidate)[table.candidate_index[row]],
        sample=table.sample[row],
        splits=[table.splits[index] for index in query],
        references=[table.references[index] for index in query],
        extras={name: values[row] for name, values in table.extras.items()},  # type: ignore[misc]
        **measured,
    )
