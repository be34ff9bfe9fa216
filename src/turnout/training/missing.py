"""This module stands in for outcomes that were not observed, so that a judgement may rest on every query.

A router that is compared with a single model on the queries where both were run is judged on a quarter of a
table that is half empty, and on nothing of one where each query met one candidate. Instead each cell has the
value

    y'_qm = f_qm + o_qm (y_qm - f_qm) / p_qm

with o whether it was observed, p the chance of that, and f a prediction that does not depend on this cell's
outcome. Its mean is right where p is right, whatever f is, and where f is right, whatever p is; f only
narrows the interval. A cell that is always observed keeps its outcome, so that a full table is judged as it
was recorded.

f is what was estimated without the query, plus what the query's other outcomes say of it: a share (least
squares over the table) of their mean surprise. p is a ridge regression of o on task and text, learned on
other queries. Where a cell is hardly ever observed nothing is known of it, and it stays unknown.

Source: J. M. Robins, A. Rotnitzky, L. P. Zhao, "Estimation of regression coefficients when some regressors
are not always observed", JASA 89, 1994; M. Dudik, J. Langford, L. Li, "Doubly robust policy evaluation and
learning", ICML 2011, equation 4. The use of a query's other outcomes is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from turnout.core.estimate import Estimate
from turnout.core.outcomes import Bools, Floats, OutcomeTable
from turnout.evaluation import Cells

MIN_CHANCE = 0.05
"""Chance of being observed below which a cell stays unknown: one outcome would stand for twenty."""
_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)
_NUM_FOLDS = 5
_MAX_TASKS = 100


def stand_in(
    table: OutcomeTable, estimate: Estimate, x_QF: np.ndarray | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return quality and cost in USD of every cell, NaN where nothing is known, and each quality's reach.

    `estimate` was made without these queries' outcomes; `x_QF` are their vectors, None for tasks alone.
    Values of single cells may lie outside of [0, 1]; their means are what counts. The reach, 1 / chance, is
    how far one outcome can move its cell: who is hardly ever observed may hide much. All have shape (Q, M).
    """
    quality_QM, usd_QM = table.quality_QM, table.cost_usd_QM
    seen_QM, priced_QM = np.isfinite(quality_QM), np.isfinite(usd_QM)
    wanted_M: Bools = np.asarray(priced_QM.any(axis=0))
    if seen_QM.all() and priced_QM[:, wanted_M].all():
        return quality_QM, usd_QM, np.ones(quality_QM.shape)
    features_QF = features_of(table, x_QF)
    chance_QM = chances(seen_QM, features_QF)
    guess_QM = guesses(quality_QM, estimate)
    chance_usd_QM = chance_QM if np.array_equal(seen_QM, priced_QM) else chances(priced_QM, features_QF)
    return (
        doubly_robust(quality_QM, guess_QM, chance_QM),
        doubly_robust(usd_QM, estimate.cost_usd_QM, chance_usd_QM),
        1.0 / np.maximum(chance_QM, MIN_CHANCE),
    )


def cells_of(
    table: OutcomeTable, estimate: Estimate, x_QF: np.ndarray | None, *, is_supported: bool = False
) -> Cells:
    """Return what the cells of held-out queries count as, for choices and for the oracle.

    The oracle looks at a query's own outcomes: it sees what was observed and expects the estimate elsewhere.
    `is_supported` says that every cell has its chance, by knowledge of more queries than these; otherwise one
    below `MIN_CHANCE` stays unknown to both.
    """
    features_QF, floor = features_of(table, x_QF), MIN_CHANCE if is_supported else 0.0
    chance_of: dict[bytes, Floats] = {}

    def filled(value_QM: Floats, guess_QM: Floats) -> tuple[Floats, Floats]:
        seen_QM = np.isfinite(value_QM)
        if seen_QM.all():
            return value_QM, value_QM
        key = np.packbits(seen_QM).tobytes()
        if key not in chance_of:
            chance_of[key] = np.maximum(chances(seen_QM, features_QF), floor)
        found_QM = doubly_robust(value_QM, guess_QM, chance_of[key])
        return found_QM, np.where(seen_QM, value_QM, np.where(np.isnan(found_QM), np.nan, guess_QM))

    quality_QM, hindsight_QM = filled(table.quality_QM, guesses(table.quality_QM, estimate))
    usd_QM, hindsight_usd_QM = filled(table.cost_usd_QM, estimate.cost_usd_QM)
    return Cells(
        quality_QM=quality_QM,
        cost_usd_QM=usd_QM,
        hindsight_QM=np.clip(hindsight_QM, 0.0, 1.0),
        hindsight_usd_QM=hindsight_usd_QM,
    )


def doubly_robust(value_QM: Floats, guess_QM: Floats, chance_QM: Floats) -> Floats:
    """Return `guess + seen (value - guess) / chance`; NaN where the chance is below `MIN_CHANCE`."""
    seen_QM = np.isfinite(value_QM)
    off_QM = np.where(seen_QM, value_QM - guess_QM, 0.0)
    found_QM: Floats = guess_QM + off_QM / np.maximum(chance_QM, MIN_CHANCE)
    found_QM = np.where(chance_QM < MIN_CHANCE, np.nan, found_QM)
    # A cell that was observed and could not be predicted is known all the same.
    return np.where(seen_QM & np.isnan(guess_QM), value_QM, found_QM)


def chances(seen_QM: Bools, x_QF: Floats) -> Floats:
    """Return the chance of each cell to be observed, in (0, 1], learned from other queries.

    Ridge regression with one penalty for all, the one of least squared error on held-out queries. A
    candidate that is observed everywhere has chance 1.
    """
    best_QM, _ = cross_fitted(seen_QM, x_QF)
    num = len(x_QF)
    # One more for each side: what was always seen here may be missed once, and the other way round.
    clipped_QM = np.clip(best_QM, 1.0 / (num + 2), 1.0)
    return np.where(seen_QM.all(axis=0), 1.0, clipped_QM)


def cross_fitted(seen_QM: Bools, x_QF: Floats) -> tuple[Floats, float]:
    """Return ridge regressions of "was observed" on unseen queries, and the penalty (infinity: means)."""
    num = len(x_QF)
    fold_Q = np.arange(num) % min(_NUM_FOLDS, num)
    found_PQM = np.empty((len(_PENALTIES) + 1, *seen_QM.shape))
    for fold in np.unique(fold_Q):
        rows = fold_Q == fold
        rest = ~rows if num > 1 else rows
        mean_M, centre_F, slope_PFM = _ridge(seen_QM[rest], x_QF[rest], _PENALTIES)
        found_PQM[-1, rows] = mean_M
        for number, slope_FM in enumerate(slope_PFM):
            found_PQM[number, rows] = mean_M + (x_QF[rows] - centre_F) @ slope_FM
    best = int(((found_PQM - seen_QM) ** 2).sum(axis=(1, 2)).argmin())
    return found_PQM[best], (*_PENALTIES, float("inf"))[best]


def linear(seen_QM: Bools, x_QF: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Return slope (F, M) and intercept (M,) of the same regression on all queries."""
    mean_M, centre_F, slope_PFM = _ridge(seen_QM, x_QF, (penalty,))
    return slope_PFM[0], mean_M - centre_F @ slope_PFM[0]


def _ridge(seen_QM: Bools, x_QF: Floats, penalties: Sequence[float]) -> tuple[Floats, Floats, list[Floats]]:
    """Return the means, the centre of the features, and the slopes at each penalty."""
    mean_M, centre_F = seen_QM.mean(axis=0), x_QF.mean(axis=0)
    values_E, basis_FE = np.linalg.eigh(np.cov(x_QF.T, bias=True).reshape(2 * (x_QF.shape[1],)))
    moment_EM = basis_FE.T @ ((x_QF - centre_F).T @ (seen_QM - mean_M)) / len(x_QF)
    slopes = [
        basis_FE @ (moment_EM / (np.maximum(values_E, 0.0) + penalty / len(x_QF))[:, None])
        for penalty in penalties
    ]
    return mean_M, centre_F, slopes


def guesses(quality_QM: Floats, estimate: Estimate) -> Floats:
    """Return what is expected of every cell without its own outcome, shape (Q, M)."""
    expected_QM: Floats = estimate.quality_QM + _surprise(quality_QM - estimate.quality_QM)
    return expected_QM


def _surprise(off_QM: Floats) -> Floats:
    """Return what the other outcomes of a query say of each cell, shape (Q, M); 0 where there are none."""
    seen_QM = np.isfinite(off_QM)
    known_QM = np.where(seen_QM, off_QM, 0.0)
    others_QM = known_QM.sum(axis=1, keepdims=True) - known_QM
    num_QM = seen_QM.sum(axis=1, keepdims=True) - seen_QM
    mean_QM = others_QM / (num_QM + 1.0)
    square = float((mean_QM[seen_QM] ** 2).sum())
    share = float((known_QM * mean_QM)[seen_QM].sum()) / square if square > 0 else 0.0
    return np.asarray(max(share, 0.0) * mean_QM)


def features_of(table: OutcomeTable, x_QF: np.ndarray | None) -> Floats:
    """Return the vectors of the texts beside one column for each of the most frequent tasks."""
    columns = [] if x_QF is None else [np.asarray(x_QF, np.float64)]
    count = Counter(task for task in table.tasks if task is not None)
    columns.append(_one_hot(table.tasks, sorted(count, key=lambda task: (-count[task], task))[:_MAX_TASKS]))
    return np.concatenate(columns, axis=1) if len(table.queries) else np.zeros((0, 1))


def _one_hot(tasks: Sequence[str | None], names: Sequence[str]) -> Floats:
    order = {name: column for column, name in enumerate(names)}
    # One column more, of zeros: a table without tasks has features too.
    found = np.zeros((len(tasks), len(names) + 1))
    for row, task in enumerate(tasks):
        if task in order:
            found[row, order[task]] = 1.0
    return found
