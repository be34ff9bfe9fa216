"""This module asks whether a choice survives another wording of the same request.

The pairs are those of RouterArena's robustness part, where TURNOUT_DATA has it. They judge and nothing else:
no method learns from them, nothing is chosen by them, and no outcome of theirs is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from turnout.core.decision import Decisions
from turnout.core.query import Query

PLACE = Path("outcomes") / "routerarena_robustness" / "queries.parquet"

Pairs = tuple[list[Query], list[Query]]


class Decides(Protocol):
    """What is asked twice."""

    def decide(self, queries: Sequence[Query]) -> Decisions:
        """Return the choices for the best quality."""


def read_pairs() -> Pairs:
    """Return requests and the same ones in other words; nothing where there is no such file."""
    root = os.environ.get("TURNOUT_DATA")
    path = Path(root or "") / PLACE
    if not root or not path.is_file():
        return [], []
    from pyarrow import parquet

    table = parquet.read_table(path, columns=["text", "original_text"]).to_pydict()
    both = [(a, b) for a, b in zip(table["original_text"], table["text"], strict=True) if a and b]
    first = [Query(id=f"{number}a", text=text) for number, (text, _) in enumerate(both)]
    second = [Query(id=f"{number}b", text=text) for number, (_, text) in enumerate(both)]
    return first, second


def flips(contestant: Decides, pairs: Pairs) -> dict[str, float] | None:
    """Return the share of pairs whose choice changes, with its standard error; None without pairs."""
    first = pairs[0]
    if not first:
        return None
    # Of another request no task is known: a choice rests on the text alone.
    before_Q, after_Q = (np.array(contestant.decide(side).names_Q) for side in pairs)
    share = float((before_Q != after_Q).mean())
    error = float(np.sqrt(share * (1.0 - share) / len(first)))
    return {"share": share, "error": error, "pairs": len(first)}
