"""This module holds what routers on an embedding have in common: the pool, its costs, the embedder.

Learning never sees the order of a table: rows stand by text and id (`read_targets`), columns by the name of
the candidate, and whoever was never observed has no column. So an iterative method gives the same numbers,
to the bit, whatever the order of a table, and a stranger in the pool changes nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.routers.charges import Charges, charges_from, fit_charges
from turnout.routers.evidence import Evidence, arrays_of, evidence_from, learn_evidence
from turnout.routers.neighbours import Array
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import (
    Targets,
    pack_candidates,
    probe_of,
    read_targets,
    seen_candidates,
    unpack_candidates,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What there is to learn: N queries and the outcomes of the M candidates that were observed."""

    queries: list[Query]
    x_NF: Array
    targets: Targets
    """Costs are multiples of the line in the length of the prompt, see `Charges`."""
    candidates: tuple[Candidate, ...]
    """The candidates of the columns, in the order of their names."""
    charges: Charges
    """Of the same candidates."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(candidate.name for candidate in self.candidates)

    @property
    def targets_usd(self) -> Targets:
        """The outcomes with costs in USD."""
        cost_usd_QM = self.targets.cost_usd_QM * self.charges.lines(self.queries)
        return Targets(self.targets.quality_QM, cost_usd_QM, self.targets.latency_s_QM)


@dataclass(frozen=True, slots=True)
class Ground:
    """The pool of a fitted router: who is in it, what each costs, and how text becomes vectors."""

    candidates: tuple[Candidate, ...]
    place: Ints
    """Which learned column each candidate has, shape (M,); -1 where it was never observed."""
    charges: Charges
    embedder: Embedder
    evidence: Evidence | None = None
    """Where the learned columns were observed; None in older artifacts."""
    _is_plain: bool = field(init=False, repr=False)
    """Whether the learned columns are the pool as it stands."""

    def __post_init__(self) -> None:
        is_plain = bool((self.place == np.arange(self.place.size)).all())
        object.__setattr__(self, "_is_plain", is_plain)

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the vectors, float32 of shape (Q, F)."""
        return np.asarray(self.embedder.embed(queries), np.float32)

    def estimate(
        self,
        queries: Sequence[Query],
        quality_QM: Floats,
        spread_QM: Floats,
        ratio_QM: Floats | None = None,
        *,
        x_QF: Array,
    ) -> Estimate:
        """Return the estimate from learned columns: the stranger is NaN, its spread infinite.

        `x_QF` are the queries' vectors (`embed`): a spread is no narrower than the evidence allows there.

        `ratio_QM` is the cost as a multiple of the line in the length of the prompt; None is each
        candidate's mean.
        """
        if self.evidence is not None:
            spread_QM = self.evidence.widen(spread_QM, x_QF)
        return self.charges.estimate(
            self.candidates,
            queries,
            self.spread_out(quality_QM, np.nan),
            self.spread_out(spread_QM, np.inf),
            None if ratio_QM is None else self.spread_out(ratio_QM, np.nan),
        )

    def spread_out(self, values_QM: Floats, missing: float) -> Floats:
        """Return learned columns in the order of the pool, with `missing` for the stranger."""
        if self._is_plain:
            return values_QM
        found_QM: Floats = values_QM[:, np.maximum(self.place, 0)].astype(np.float64)
        found_QM[:, self.place < 0] = missing
        return found_QM

    def with_added(self, candidate: Candidate, lesson: Lesson) -> Ground:
        """Return the pool with one more candidate, whose learned column is the next one."""
        place = np.append(self.place, self.place.max(initial=-1) + 1)
        charges, evidence = self.charges.with_added(lesson.charges), self.evidence
        if evidence is not None:
            evidence = evidence.with_texts(lesson.x_NF, lesson.targets.quality_QM)
        return Ground((*self.candidates, candidate), place, charges, self.embedder, evidence)

    def state(
        self,
        given: Embedder | None,
        arrays: Mapping[str, np.ndarray],
        values: Mapping[str, object] | None = None,
    ) -> State:
        """Return the state of a router that stands on this ground; `ground_from` reads its part."""
        return State(
            arrays={"place": self.place, **self.charges.arrays(), **arrays_of(self.evidence), **arrays},
            values={"candidates": pack_candidates(self.candidates), **(values or {})},
            parts=embedder_parts(given, self.embedder),
        )


def ground_from(state: State, given: Embedder | None) -> Ground:
    """Rebuild from `Ground.state`."""
    return Ground(
        unpack_candidates(state.values["candidates"]),
        state.arrays["place"],
        charges_from(state.arrays),
        restored_embedder(given, state.parts),
        evidence_from(state.arrays),
    )


def learn_ground(table: OutcomeTable, given: Embedder | None) -> tuple[Ground, Lesson]:
    """Read a table: the ground to stand on, and what there is to learn.

    Raises `TableError` for a table without one known quality: nothing can be learned from it.
    """
    queries, targets = read_targets(table)
    embedder = fitted_embedder(given, queries)
    charges, over = fit_charges(queries, targets)
    names = table.names
    is_seen = seen_candidates(over)
    column = np.array(sorted(np.flatnonzero(is_seen).tolist(), key=lambda at: names[at]), np.int64)
    place = np.full(len(names), -1, np.int64)
    place[column] = np.arange(column.size)
    x_NF = np.asarray(embedder.embed(queries), np.float32)
    lesson = _lesson(queries, x_NF, over, table.candidates, charges, column)
    evidence = learn_evidence(x_NF, lesson.targets.quality_QM)
    return Ground(table.candidates, place, charges, embedder, evidence), lesson


def read_probe(ground: Ground, candidate: Candidate, table: OutcomeTable) -> Lesson:
    """Read the rows of a newcomer, a lesson of one column; its queries need not be known.

    Raises `InputError` for a candidate that is known already, `TableError` where the table has no row of it.
    """
    queries, targets = read_targets(probe_of(table, candidate, ground.candidates))
    charges, over = fit_charges(queries, targets)
    return _lesson(queries, ground.embed(queries), over, (candidate,), charges, np.zeros(1, np.int64))


def _lesson(
    queries: list[Query],
    x_NF: Array,
    over: Targets,
    candidates: Sequence[Candidate],
    charges: Charges,
    column: Ints,
) -> Lesson:
    targets = Targets(over.quality_QM[:, column], over.cost_usd_QM[:, column], over.latency_s_QM[:, column])
    return Lesson(queries, x_NF, targets, tuple(candidates[at] for at in column), charges.take(column))
