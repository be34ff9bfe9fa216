"""This module says aloud what a reader of the numbers has to know: the warnings of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.evaluation.coverage import MAX_DROPPED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from turnout.core.outcomes import OutcomeTable
    from turnout.evaluation.judge import Judged
    from turnout.evaluation.leaks import LeakageCheck
    from turnout.evaluation.report import Row

FEW_QUERIES = 200
"""Below this many scored queries (or groups) a percentile interval is rough."""


def find_warnings(
    judged: Judged,
    rows: Sequence[Row],
    train: OutcomeTable | None,
    found: LeakageCheck | None,
    knn: str | None,
) -> tuple[str, ...]:
    """Return one sentence for everything that limits what the report may be used for."""
    return (
        *_about_split(train, found),
        *_about_runs(rows, knn),
        *_about_coverage(judged),
    )


def _about_split(train: OutcomeTable | None, found: LeakageCheck | None) -> Iterator[str]:
    if train is None:
        yield (
            "no training table was given: best single and best per group were chosen on the reported "
            "queries, which flatters them, and leakage was not looked for"
        )
    elif found is None:
        yield "leakage between train and table was not looked for (leakage='skip')"
    elif found.is_leaking:
        yield f"the split leaks, which was allowed: {found}"
    elif found.near:
        yield f"within tolerance: {found}"
    if found is not None and found.unreadable:
        yield f"{found.unreadable} of {found.num_test} queries have no text and were not checked for leakage"


def _about_runs(rows: Sequence[Row], knn: str | None) -> Iterator[str]:
    if knn is None:
        yield "no kNN baseline was given: pass its decisions as a run and name it with knn=..."
    for row in rows:
        if row.refused:
            yield f"{row.name!r} serves nobody on {row.refused} queries, which score quality 0 at cost 0"
        if row.kind == "run" and row.note:
            yield f"{row.name!r} is shown at the {row.note}: pass the deployed point as Run(chosen=...)"


def _about_coverage(judged: Judged) -> Iterator[str]:
    coverage = judged.coverage
    if not coverage.has_costs:
        yield f"no money in this report: {coverage.cost_note}"
    dropped = coverage.num_queries - coverage.num_scored
    if coverage.dropped_share > MAX_DROPPED:
        yield (
            f"{dropped} of {coverage.num_queries} queries ({coverage.dropped_share:.0%}) are not scored: "
            f"{coverage.dropped_quality} lack a quality and {coverage.dropped_cost} a cost of something "
            "compared; the numbers are about the rest"
            + (" (`cells=` lets what was observed count)" if judged.is_recorded else "")
        )
    if not judged.table.observed_QM.all():
        num, size = int(judged.table.observed_QM.sum()), judged.table.observed_QM.size
        share = _percent(1.0 - num / size)
        what = (
            f"{share} of the scored (query, candidate) pairs were not observed ({num:,} of {size:,} were): "
        )
        if judged.is_recorded:
            yield what + "random and oracle are over the observed ones, so the oracle is a lower bound"
        else:
            yield what + (
                "an estimate stands in for them, in the oracle too; it is right if what was observed does "
                "not depend on how good the answer was, beyond what text and task say"
            )
    if coverage.has_costs and judged.is_recorded:
        unpriced = judged.table.observed_QM & np.isnan(judged.table.cost_usd_QM)
        if unpriced.any():
            share = _percent(float(unpriced.mean()))
            yield f"{share} of the pairs have no known cost: random and oracle leave them out"
    if coverage.num_scored < FEW_QUERIES:
        yield f"only {coverage.num_scored} queries are scored: the intervals are rough"


def _percent(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}"
