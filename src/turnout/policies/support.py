"""This module says where a candidate may be chosen: only on queries like those it was observed on.

What a candidate does on queries of which it met none like them is nobody's knowledge, however sure a router
is that extrapolates to them, and no held-out query can refute it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from turnout.core.contracts import Configured, Embedder
from turnout.core.outcomes import Bools, Floats
from turnout.core.query import Query

_ARRAYS = ("weight_FM", "bias_M", "cut_M", "unseen_KM", "share_M")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """Which candidates were observed on what; learned by `turnout.training.support`.

    A candidate is offered to a query where the score of its text, how likely it was to be observed, lies
    above the candidate's cut, and where the query names no task on which it was not observed.
    """

    embedder: Embedder
    weight_FM: Floats
    """What each feature of the text adds to the score."""
    bias_M: Floats
    cut_M: Floats
    """Scores up to which a candidate is not offered; minus infinity for one that is offered to any text."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """Row of each task in `unseen_KM`."""
    unseen_KM: Bools
    """Whether a candidate was not observed on a task."""
    share_M: Floats
    """Share of the table's queries to which each candidate is offered."""

    def allowed(self, queries: Sequence[Query], num: int | None = None) -> Bools:
        """Return to whom of the first `num` candidates each query may go, shape (Q, num); the rest may too.

        A query that is like nothing that anybody was observed on may go to all.
        """
        size = self.cut_M.size
        score_QM = np.asarray(self.embedder.embed(queries), np.float64) @ self.weight_FM + self.bias_M
        is_in_QM: Bools = score_QM > self.cut_M
        row_Q = np.array([self.tasks.get(query.task or "", -1) for query in queries], np.int64)
        if self.tasks:
            is_in_QM &= ~(self.unseen_KM[np.maximum(row_Q, 0)] & (row_Q >= 0)[:, None])
        is_in_QM = is_in_QM | ~is_in_QM.any(axis=1, keepdims=True)
        rest = max((size if num is None else num) - size, 0)
        return np.concatenate([is_in_QM, np.ones((len(queries), rest), np.bool_)], axis=1)

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, object], dict[str, Configured]]:
        """Return arrays, JSON values and parts for the state of a deployment."""
        arrays = {f"support.{name}": np.asarray(getattr(self, name)) for name in _ARRAYS}
        arrays["support.unseen_KM"] = self.unseen_KM.astype(np.uint8)
        return arrays, {"support_tasks": list(self.tasks)}, {"support": self.embedder}


def unpacked(
    arrays: Mapping[str, np.ndarray], values: Mapping[str, object], parts: Mapping[str, Configured]
) -> Support | None:
    """Return what `Support.pack` gave, None where nothing was packed."""
    embedder, tasks = parts.get("support"), values.get("support_tasks")
    if not isinstance(embedder, Embedder) or not isinstance(tasks, list):
        return None
    found = {name: arrays[f"support.{name}"] for name in _ARRAYS}
    found["unseen_KM"] = found["unseen_KM"].astype(np.bool_)
    return Support(embedder=embedder, tasks={task: row for row, task in enumerate(tasks)}, **found)
