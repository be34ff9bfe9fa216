"""This module names the routers that `auto` tries on a table, by its size and by what it records."""

from __future__ import annotations

from turnout.core.contracts import Router
from turnout.core.outcomes import OutcomeTable
from turnout.features import SignalsEmbedder
from turnout.routers import (
    AvengersRouter,
    GroupMeanRouter,
    InferredGroupRouter,
    KNNRouter,
    RidgeRouter,
    UniRouteRouter,
)

MAX_STORED = 50_000
"""Queries up to which kNN takes part. It stores each of them: beyond, clusters stand in for neighbours.

A round number, for the time that the folds take, which grows with its square; it was not tuned on a table.
"""


def learners(table: OutcomeTable, *, tasks_given: bool) -> dict[str, Router]:
    """Return the unfitted routers to try, by name; each reads text through the embedder it is handed later.

    Two read signals of the text instead, whatever that embedder is; they cost little beside it.

    `tasks_given` says that requests will come with their task. Otherwise nobody reads the task of a new
    query: where the table names tasks they are inferred from the text.
    """
    found: dict[str, Router] = {
        "ridge": RidgeRouter(),
        "avengers": AvengersRouter(),
        "uniroute": UniRouteRouter(),
    }
    if len(table.queries) <= MAX_STORED:
        found["knn"] = KNNRouter()
    # What an embedder of words cannot see: numbers, capitals, lines, length. One rule, or a range of values.
    found["signals"] = RidgeRouter(embedder=SignalsEmbedder())
    found["signal_groups"] = UniRouteRouter(embedder=SignalsEmbedder())
    tasks = {task for task in table.tasks if task is not None}
    if len(tasks) > 1:
        found["inferred_group"] = InferredGroupRouter(reads_task=tasks_given)
        if tasks_given:
            found["group_mean"] = GroupMeanRouter()
    return found
