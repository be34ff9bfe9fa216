"""This module makes what every router is compared with: random, best single, best per group, oracle.

The best single model and the best per group are chosen on the training table and only scored on the one
that is reported. Random is the expectation of a uniform choice, not a sample of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turnout.core.errors import TableError, sentence
from turnout.core.levels import adjusted_means, drawn_means
from turnout.core.scoring import name_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from turnout.core.outcomes import Floats, Ints, OutcomeTable

MIN_COVERAGE = 0.5
"""Candidates observed on less than this share of the widest-observed one's queries cannot be best."""
TIE = 1e-12
"""Qualities closer than this are equal: means over samples carry rounding noise."""


def best_single(table: OutcomeTable, *, min_coverage: float = MIN_COVERAGE) -> str:
    """Return the name of the candidate with the highest mean quality; ties go to the cheaper.

    On a sparse table a mean over easier queries is no evidence, so that how hard a query is counts out
    (`adjusted_means`); candidates observed on few queries are left out, and means over fewer are drawn to
    the common one (`drawn_means`), so that luck does not lead. Where it is known that nobody was kept from a
    place, `min_coverage` may be 0: few outcomes are then no worse than that.
    """
    columns = table.quality_QM, table.cost_usd_QM, table.names, table.tasks
    return table.names[_best_column(*columns, min_coverage=min_coverage)]


def best_per_group(table: OutcomeTable) -> dict[str | None, str]:
    """Return the best candidate of every task of the table, by `best_single` within the task."""
    tasks = np.array([task or "" for task in table.tasks])
    best: dict[str | None, str] = {}
    for task in sorted(set(tasks.tolist())):
        rows = tasks == task
        if table.observed_QM[rows].any():
            column = _best_column(table.quality_QM[rows], table.cost_usd_QM[rows], table.names)
            best[task or None] = table.names[column]
    return best


def group_choices(best: Mapping[str | None, str], fallback: str, table: OutcomeTable) -> Ints:
    """Return the choice per query, shape (Q,); a task that was not seen gets `fallback`."""
    position = {name: index for index, name in enumerate(table.names)}
    return np.array([position[best.get(task, fallback)] for task in table.tasks], dtype=np.int64)


def eligible(quality_QM: Floats, cost_usd_QM: Floats, *, has_costs: bool) -> Floats:
    """Return the qualities among which random or the oracle chooses, shape (Q, M), NaN elsewhere.

    Where money is reported a candidate of unknown cost is left out: it could win at no price.
    """
    return np.where(np.isnan(cost_usd_QM), np.nan, quality_QM) if has_costs else quality_QM


def random_outcome(quality_QM: Floats, cost_usd_QM: Floats | None) -> tuple[Floats, Floats | None]:
    """Return the expected quality and cost of a uniform choice among the observed, shape (Q,) each.

    The expectation of cost is over observed candidates of known cost; NaN where there is none.
    """
    if cost_usd_QM is None:
        return _row_mean(quality_QM), None
    return _row_mean(quality_QM), _row_mean(np.where(np.isnan(quality_QM), np.nan, cost_usd_QM))


def oracle_choices(quality_QM: Floats, cost_usd_QM: Floats | None, names: Sequence[str]) -> Ints:
    """Return the cheapest of the best candidates of each query, shape (Q,); ties go to the earlier name.

    A candidate of unknown cost is taken only where no equally good one of known cost exists.
    """
    best_Q = np.nanmax(quality_QM, axis=1)
    is_best_QM = quality_QM >= best_Q[:, None] - TIE
    cost_QM = np.zeros_like(quality_QM) if cost_usd_QM is None else cost_usd_QM
    key_QM = np.where(np.isnan(cost_QM), np.finfo(np.float64).max, cost_QM)
    key_QM = np.where(is_best_QM, key_QM, np.inf)
    order = np.argsort(name_order(tuple(names)))
    chosen_Q: Ints = order[np.argmin(key_QM[:, order], axis=1)]
    return chosen_Q


def _best_column(
    quality_QM: Floats,
    cost_usd_QM: Floats,
    names: tuple[str, ...],
    tasks: Sequence[str | None] | None = None,
    *,
    min_coverage: float = MIN_COVERAGE,
) -> int:
    observed_QM = ~np.isnan(quality_QM)
    share_M = observed_QM.mean(axis=0)
    if not share_M.max() > 0:
        raise TableError(sentence("evaluate: the training table has no observed quality"))
    columns = np.flatnonzero((share_M > 0.0) & (share_M >= min_coverage * share_M.max()))
    quality_QC = quality_QM[:, columns]
    is_dense = bool(observed_QM[:, columns].all())
    mean_M = _row_mean(quality_QC.T) if is_dense else _fair_means(quality_QC, tasks)
    cost_M = _row_mean(cost_usd_QM[:, columns].T)
    best = np.flatnonzero(mean_M >= np.nanmax(mean_M) - TIE)
    rank = name_order(names)[columns]
    cost_key = np.where(np.isnan(cost_M), np.inf, cost_M)
    return int(columns[min(best, key=lambda k: (cost_key[k], rank[k]))])


def _fair_means(quality_QM: Floats, tasks: Sequence[str | None] | None) -> Floats:
    num_M = np.isfinite(quality_QM).sum(axis=0).astype(np.float64)
    off_QM = quality_QM - _row_mean(quality_QM.T)
    variance = float(np.nansum(off_QM**2)) / max(float(num_M.sum()) - num_M.size, 1.0)
    return drawn_means(adjusted_means(quality_QM, tasks), num_M, variance)


def _row_mean(values_QM: Floats) -> Floats:
    """Return the mean over the known entries of each row, NaN where none is known, without a warning."""
    known_QM = ~np.isnan(values_QM)
    count_Q = known_QM.sum(axis=1)
    mean_Q = np.full(values_QM.shape[0], np.nan)
    np.divide(np.where(known_QM, values_QM, 0.0).sum(axis=1), count_Q, out=mean_Q, where=count_Q > 0)
    return mean_Q
