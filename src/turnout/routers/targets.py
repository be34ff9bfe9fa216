"""This module reads from a table what routers learn: dense quality, cost and latency per candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate, candidate_from_dict
from turnout.core.errors import InputError, TableError, sentence
from turnout.core.outcomes import Bools, Floats, Ints, OutcomeTable
from turnout.core.query import Query

_CANDIDATES = 256
"""Candidates of a large pool on whose outcomes a setting that all share is chosen."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Outcomes of M candidates on Q queries; every array has shape (Q, M), NaN where unknown."""

    quality_QM: Floats
    cost_usd_QM: Floats
    latency_s_QM: Floats

    def take(self, rows: Ints) -> Targets:
        """Return the outcomes of some queries."""
        return Targets(self.quality_QM[rows], self.cost_usd_QM[rows], self.latency_s_QM[rows])

    def over(self, line_QM: Floats) -> Targets:
        """Return the same with each cost as a multiple of what its line says (`length_trend`)."""
        return Targets(self.quality_QM, self.cost_usd_QM / line_QM, self.latency_s_QM)


def read_targets(table: OutcomeTable) -> tuple[list[Query], Targets]:
    """Return the queries with any outcome, ordered by text and id, and their outcomes in that order.

    The order makes what is learned independent of the order of a table's rows.
    """
    cost_usd_QM = filled_costs(table)
    known_Q = (
        np.isfinite(table.quality_QM) | np.isfinite(cost_usd_QM) | np.isfinite(table.latency_s_QM)
    ).any(axis=1)
    rows = sorted(
        np.flatnonzero(known_Q).tolist(), key=lambda i: (table.queries[i].words, table.queries[i].id)
    )
    if not rows:
        raise TableError(sentence("the table to fit holds no outcome", do="check the split and the columns"))
    targets = Targets(table.quality_QM, cost_usd_QM, table.latency_s_QM)
    return [table.queries[i] for i in rows], targets.take(np.array(rows, np.int64))


def sampled(names: Sequence[str]) -> Ints:
    """Return the columns of at most 256 candidates, evenly spread over the names: all of a usual pool."""
    step = -(-len(names) // _CANDIDATES)
    order = sorted(range(len(names)), key=names.__getitem__)
    return np.sort(np.array(order, np.int64)[::step])


def seen_candidates(targets: Targets) -> Bools:
    """Return which candidates have a known quality, shape (M,).

    Raises `TableError` where none has: nothing can be learned from such a table.
    """
    is_seen: Bools = np.asarray(np.isfinite(targets.quality_QM).any(axis=0))
    if not is_seen.any():
        raise TableError(sentence("the table to fit holds no quality", do="grade some answers first"))
    return is_seen


def filled_costs(table: OutcomeTable) -> Floats:
    """Return `cost_usd_QM` with unknown cells filled from the price card where tokens were recorded."""
    return with_card_costs(table).cost_usd_QM


def with_card_costs(table: OutcomeTable) -> OutcomeTable:
    """Return the table with unknown costs filled from the price card where tokens were recorded."""
    cards = [candidate.price_card for candidate in table.candidates]
    input_usd_M = np.array([np.nan if card is None else card.input_usd_per_mtok for card in cards]) / 1e6
    output_usd_M = np.array([np.nan if card is None else card.output_usd_per_mtok for card in cards]) / 1e6
    of = table.candidate_index
    listed = table.input_tokens * input_usd_M[of] + table.output_tokens * output_usd_M[of]
    is_missing = np.isnan(table.cost_usd) & np.isfinite(listed)
    if not is_missing.any():
        return table
    return table.with_costs(np.where(is_missing, listed, table.cost_usd))


def probe_of(table: OutcomeTable, candidate: Candidate, known: Sequence[Candidate]) -> OutcomeTable:
    """Return the rows of `candidate` in a probe table, or raise if it is known already or has none."""
    if candidate.name in {other.name for other in known}:
        raise InputError(
            sentence(
                f"add_candidate: {candidate.name!r} is already in the pool", do="fit again to replace it"
            )
        )
    part = table.select(candidates=[candidate.name])
    seen_Q = part.observed_QM[:, 0]
    if not seen_Q.any():
        raise TableError(
            sentence(
                f"add_candidate: the probe table holds no quality of {candidate.name!r}",
                do="ask it some tens of queries and grade the answers",
            )
        )
    return part.where(seen_Q)


def pack_candidates(candidates: Sequence[Candidate]) -> list[dict[str, object]]:
    """Return JSON values; `unpack_candidates` reads them back."""
    return [candidate.to_dict() for candidate in candidates]


def unpack_candidates(values: object) -> tuple[Candidate, ...]:
    """Rebuild from `pack_candidates`."""
    if not isinstance(values, list):
        raise InputError(sentence("the state of a router", allowed="a list of candidates", got=values))
    return tuple(candidate_from_dict(value) for value in values)
