"""Was it worth it?

Contract: `evaluate(runs, table) -> Report`. Imports: core (and policies, datasets). Evaluation sees
decisions, never routers, so that a stranger's router is judged by the same code.

    report = evaluate({"router": decisions, "knn": knn_decisions}, test, train=train)
    print(report.to_text())

`runs` maps names to `Decisions` (a point), to a sequence of `Decisions` (a sweep over dual prices), or to a
`Run` that has both. Row i of every `Decisions` is about `table.queries[i]`. Random, best single, best per
group and oracle are always added; kNN is a run that the caller passes in. `near_duplicates`, `split` and
`check_split` keep the same text from standing on both sides of a split. docs/evaluation.md explains every
number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.evaluation.cells import Cells
    from turnout.evaluation.coverage import dense_part
    from turnout.evaluation.duplicates import near_duplicates
    from turnout.evaluation.leaks import LeakageCheck, check_split, split
    from turnout.evaluation.report import Report, Row
    from turnout.evaluation.runs import Run
    from turnout.evaluation.saving import Saving
    from turnout.evaluation.value import Value
    from turnout.evaluation.verdict import evaluate

_LAZY = {
    "Cells": ".cells",
    "LeakageCheck": ".leaks",
    "Report": ".report",
    "Row": ".report",
    "Run": ".runs",
    "Saving": ".saving",
    "Value": ".value",
    "check_split": ".leaks",
    "dense_part": ".coverage",
    "evaluate": ".verdict",
    "near_duplicates": ".duplicates",
    "split": ".leaks",
}

__all__ = [
    "Cells",
    "LeakageCheck",
    "Report",
    "Row",
    "Run",
    "Saving",
    "Value",
    "check_split",
    "dense_part",
    "evaluate",
    "near_duplicates",
    "split",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
