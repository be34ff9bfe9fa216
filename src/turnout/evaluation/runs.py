"""This module reads what is to be judged: named decisions become choices in the table's own order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.decision import NONE, Decisions
from turnout.core.errors import InputError, ShapeError, UnknownNameError, did_you_mean, sentence

if TYPE_CHECKING:
    from turnout.core.estimate import Estimate
    from turnout.core.outcomes import Floats, Ints, OutcomeTable

BASELINES = ("random", "best single", "best per group", "oracle")
"""The names that every report adds by itself."""


@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """One thing to judge: the point that would be deployed, the sweep around it, or both."""

    chosen: Decisions | None = None
    """The decisions to report in the table: chosen without a look at the table that is reported."""
    sweep: Sequence[Decisions] = ()
    """Decisions over a range of dual prices: the quality-cost curve."""
    estimate: Estimate | None = None
    """What was predicted for every candidate, for the calibration error; None leaves it out."""

    def __post_init__(self) -> None:
        if self.chosen is None and not self.sweep:
            raise InputError(sentence("Run", allowed="chosen decisions, a sweep, or both", got="neither"))


RunLike = Run | Decisions | Sequence[Decisions]


@final
@dataclass(frozen=True, kw_only=True)
class Choices:
    """A run as indices into the table's candidates; -1 is a refusal."""

    name: str
    head_Q: Ints
    """The choices shown in the table, shape (Q,)."""
    head: Decisions
    """The decisions they come from."""
    sweep_PQ: Ints
    """The choices of the sweep by rising price, shape (P, Q); P is 0 without a sweep."""
    prices_P: Floats
    """Dual price of each point of the sweep."""
    is_chosen: bool
    """Whether the head was given; otherwise it is the sweep's point of the lowest price."""
    estimate: Estimate | None


def read_runs(runs: Mapping[str, RunLike], table: OutcomeTable) -> tuple[Choices, ...]:
    """Return every run in the table's terms; raises when names or lengths do not fit."""
    if not runs:
        raise InputError(sentence("evaluate: runs", allowed="at least one named run", got=dict(runs)))
    taken = sorted(set(runs) & set(BASELINES))
    if taken:
        raise InputError(
            sentence(
                "evaluate: runs", allowed=f"names other than {', '.join(BASELINES)}", got=", ".join(taken)
            )
        )
    return tuple(_read_run(name, _as_run(name, given), table) for name, given in runs.items())


def _as_run(name: str, given: RunLike) -> Run:
    if isinstance(given, Run):
        return given
    if isinstance(given, Decisions):
        return Run(chosen=given)
    points: object = given
    if not isinstance(points, Sequence) or not all(isinstance(point, Decisions) for point in points):
        raise InputError(
            sentence(
                f"evaluate: run {name!r}",
                allowed="Decisions, a sequence of Decisions, or a Run",
                got=type(given).__name__,
            )
        )
    return Run(sweep=given)


def _read_run(name: str, run: Run, table: OutcomeTable) -> Choices:
    sweep = sorted(run.sweep, key=lambda point: point.price)
    head = run.chosen if run.chosen is not None else sweep[0]
    sweep_PQ = np.array([_choices(name, point, table) for point in sweep], dtype=np.int64)
    estimate = run.estimate
    if estimate is not None:
        _check_length(f"{name}: estimate", estimate.num_queries, table)
        estimate = estimate.reorder([n for n in table.names if n in set(estimate.names)])
    return Choices(
        name=name,
        head_Q=_choices(name, head, table),
        head=head,
        sweep_PQ=sweep_PQ.reshape(len(sweep), len(table.queries)),
        prices_P=np.array([point.price for point in sweep], dtype=np.float64),
        is_chosen=run.chosen is not None,
        estimate=estimate,
    )


def _choices(name: str, decisions: Decisions, table: OutcomeTable) -> Ints:
    _check_length(name, len(decisions), table)
    position = {known: index for index, known in enumerate(table.names)}
    index_M = np.full(len(decisions.candidates) + 1, NONE, dtype=np.int64)
    used = set(np.unique(decisions.choice_Q).tolist())
    for column, candidate in enumerate(decisions.candidates):
        if candidate.name in position:
            index_M[column] = position[candidate.name]
        elif column in used:
            raise UnknownNameError(
                sentence(
                    f"evaluate: run {name!r} chooses {candidate.name!r}, which the table does not hold",
                    do=did_you_mean(candidate.name, position),
                )
            )
    # A refusal is -1, which reads the last entry: -1 again.
    chosen_Q: Ints = index_M[decisions.choice_Q]
    return chosen_Q


def _check_length(name: str, length: int, table: OutcomeTable) -> None:
    if length != len(table.queries):
        raise ShapeError(
            sentence(
                f"evaluate: run {name!r}",
                allowed=f"one decision per query of the table, Q = {len(table.queries)}",
                got=length,
                do="decide on the queries of this table, in its order",
            )
        )
