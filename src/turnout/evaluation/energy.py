"""This module measures quality per watt: of candidates with recorded energy, and of decisions over them.

Source: S40, "Intelligence per Watt", arXiv 2511.07885, abstract: task accuracy divided by unit of power.
Differs: the abstract leaves open whether queries or totals are divided; here mean quality is divided by
total energy over total time, so that a short query does not count as much power as a long one. Quality per
joule stands beside it, which does not reward slowness.
Trap: power is energy over time, so a candidate that is slower at the same energy per query has more
intelligence per watt, and is not better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.decision import NONE
from turnout.core.errors import InputError, TableError, sentence

if TYPE_CHECKING:
    from turnout.core.decision import Decisions
    from turnout.core.outcomes import Bools, Floats, OutcomeTable

COLUMN = "energy_j"
"""Name of the extra column of a table that holds the energy of a call, in joules."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """What quality took, over the calls whose quality, energy and latency are all known."""

    num: int
    """Number of these calls."""
    quality: float
    energy_j: float
    """Mean energy per call."""
    watts: float
    """Mean power: total energy over total time."""
    per_watt: float
    """Quality per watt, intelligence per watt."""
    per_joule: float
    """Mean quality per mean joule."""


def energy_QM(table: OutcomeTable) -> Floats:
    """Return the mean recorded energy in joules over samples, shape (Q, M); NaN where unknown.

    Raises `TableError` where the table has no column `energy_j`, or an entry is no number of at least 0.
    """
    if COLUMN not in table.extras:
        raise TableError(
            sentence(
                f"the table records no energy: it has no extra column {COLUMN!r}",
                do="record joules per call, with EnergyMeter where the machine has a counter",
            )
        )
    energy_N = np.array([_joules(row, value) for row, value in enumerate(table.extras[COLUMN])])
    # The mean over samples is that of costs, whatever their unit.
    return table.with_costs(energy_N).cost_usd_QM


def _joules(row: int, value: object) -> float:
    if value is None:
        return float("nan")
    is_number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    if not is_number or float(value) < 0 or np.isinf(float(value)):  # type: ignore[arg-type]
        allowed = "joules, at least 0, or None where unknown"
        raise TableError(sentence(f"{COLUMN} of row {row}", allowed=allowed, got=value))
    return float(value)  # type: ignore[arg-type]


def efficiency_by_candidate(table: OutcomeTable) -> dict[str, Efficiency]:
    """Return the efficiency of each candidate by name, over its own calls."""
    energy = energy_QM(table)
    found = {}
    for column, name in enumerate(table.names):
        is_of_QM = np.zeros(energy.shape, np.bool_)
        is_of_QM[:, column] = True
        found[name] = _efficiency(table, energy, is_of_QM)
    return found


def efficiency_of(decisions: Decisions, table: OutcomeTable) -> Efficiency:
    """Return the efficiency of the chosen calls; row i of the decisions is about `table.queries[i]`."""
    names = tuple(candidate.name for candidate in decisions.candidates)
    if len(decisions) != len(table.queries) or names != table.names:
        allowed = f"{len(table.queries)} decisions over {table.names}"
        raise InputError(sentence("efficiency_of", allowed=allowed, got=f"{len(decisions)} over {names}"))
    is_of_QM = decisions.choice_Q[:, None] == np.arange(len(names))
    is_of_QM &= (decisions.choice_Q != NONE)[:, None]
    return _efficiency(table, energy_QM(table), is_of_QM)


def _efficiency(table: OutcomeTable, energy: Floats, is_of_QM: Bools) -> Efficiency:
    quality, latency = table.quality_QM[is_of_QM], table.latency_s_QM[is_of_QM]
    joules = energy[is_of_QM]
    known = np.isfinite(quality) & np.isfinite(latency) & np.isfinite(joules)
    num = int(known.sum())
    if not num:
        nan = float("nan")
        return Efficiency(num=0, quality=nan, energy_j=nan, watts=nan, per_watt=nan, per_joule=nan)
    mean, energy_j = float(quality[known].mean()), float(joules[known].mean())
    watts = _over(energy_j, float(latency[known].mean()))
    return Efficiency(
        num=num,
        quality=mean,
        energy_j=energy_j,
        watts=watts,
        per_watt=_over(mean, watts),
        per_joule=_over(mean, energy_j),
    )


def _over(value: float, by: float) -> float:
    return value / by if by > 0 else float("nan")
