"""This module prepares the tables of `bench_sequential`: dense parts, answers, signals, and a currency.

`mot_cascade` records no cost in USD: there one "usd" stands for a million output tokens, and the agreement of
an arm's own samples is known after the call (the signal `agreement`), as vote cascades use it. Its dense part
has the arms of one model; the task `date` has those of two, so it is reported by itself.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as parquet

from turnout.core import OutcomeTable
from turnout.core.errors import UnknownNameError
from turnout.core.rng import make_rng
from turnout.datasets import load
from turnout.datasets.loading import find_table
from turnout.evaluation import dense_part

HIDDEN_COSTS = "o1-"
"""Models that hide their reasoning tokens: their recorded costs are far too low."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A table as the benchmark plays it."""

    name: str
    table: OutcomeTable
    unit: str
    """What one unit of cost is."""
    signals: tuple[str, ...] = ()
    has_answers: bool = False
    note: str = ""


def prepare(name: str, max_queries: int, *, seed: int) -> Prepared | None:
    """Return a table by the name of this benchmark; None where its data are not here."""
    source = name.split(":", maxsplit=1)[0]
    try:
        find_table(source)
    except UnknownNameError:
        return None
    if source == "mot_cascade":
        return _agreement_cascade(name, max_queries, seed=seed)
    table = load(source, responses=source == "lookahead")
    kept = [model for model in table.names if not model.startswith(HIDDEN_COSTS)]
    dense = _cap(dense_part(table.select(candidates=kept)), max_queries, seed=seed)
    has_answers = bool({"answer", "response"} & set(dense.extras))
    return Prepared(name=name, table=dense, unit="usd", has_answers=has_answers)


def _agreement_cascade(name: str, max_queries: int, *, seed: int) -> Prepared:
    table = load("mot_cascade")
    if name.endswith(":date"):
        table = table.select(task="date")
    table = _with_samples(table)
    dense = _cap(dense_part(table), max_queries, seed=seed)
    return Prepared(
        name=name,
        table=dense.with_costs(dense.output_tokens * 1e-6),
        unit="million output tokens",
        signals=("agreement",),
        has_answers=True,
        note="output tokens are estimated, of all samples of an arm; prompts were not recorded",
    )


def _with_samples(table: OutcomeTable) -> OutcomeTable:
    rows = parquet.read_table(find_table("mot_cascade") / "samples.parquet").to_pylist()
    known = {(row["query_id"], row["arm"]): row for row in rows}
    cells = zip(table.query_index.tolist(), table.candidate_index.tolist(), strict=True)
    found = [known.get((table.queries[q].id, table.names[m])) for q, m in cells]
    return table.with_extras(
        {
            "answer": [None if row is None else row["prediction"] for row in found],
            "agreement": [None if row is None else _agreement(row["sampled_answers"]) for row in found],
        }
    )


def _agreement(sampled: str | None) -> float:
    """Return the share of the most frequent sampled answer; 1 for a single sample."""
    answers = json.loads(sampled) if sampled else []
    return max(Counter(map(str, answers)).values()) / len(answers) if answers else 1.0


def _cap(table: OutcomeTable, max_queries: int, *, seed: int) -> OutcomeTable:
    num = len(table.queries)
    if num <= max_queries:
        return table
    keep_Q = np.zeros(num, np.bool_)
    keep_Q[make_rng(seed, "cap").permutation(num)[:max_queries]] = True
    return table.where(keep_Q)
