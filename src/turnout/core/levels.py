"""This module counts out of a candidate's mean how hard its queries were, and how lucky it may have been.

On a table with holes a mean over easier queries is no evidence. Least squares of `quality_qm = level_q +
value_m` over observed cells (F. Yates, "The principles of orthogonality and confounding in replicated
experiments", 1933) compares candidates on the queries that they share, pair by pair. Levels are drawn to
that of their task, and tasks to the common one, by almost nothing: where no query is shared candidates are
compared task by task, and where no task is either, by their means.

Of many candidates that were observed on few queries the luckiest leads. So means are drawn toward the common
one, the more the fewer outcomes they have, by empirical Bayes: C. N. Morris, "Parametric empirical Bayes
inference", JASA 78, 1983, with the variance between candidates by moments (R. DerSimonian, N. Laird,
"Meta-analysis in clinical trials", Controlled Clinical Trials 7, 1986).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.outcomes import Floats

_LEVEL_PRIOR = 1e-3
"""Weight of the task's level in a query's own, in observations."""
_LEAST_BETWEEN = 0.01
"""Variance between candidates that one more of them would show: a deviation of a tenth of the scale."""
_TASK_PRIOR = 1e-6
"""Weight of the common level in a task's own: small beside what one query says of it."""


def adjusted_means(quality_QM: Floats, tasks: Sequence[str | None] | None = None) -> Floats:
    """Return each candidate's mean as if it had been observed on every query, shape (M,).

    NaN for one that was never observed; the mean itself where everything else is dense. Rounded to nine
    digits otherwise, so that ties are ties. `tasks` has one entry per query; None is one task for all.
    Cost: O(Q M min(Q, M)).
    """
    known_QM = np.isfinite(quality_QM)
    num_M, rows, seen_M = known_QM.sum(axis=0), known_QM.any(axis=1), known_QM.any(axis=0)
    plain_M = np.where(known_QM, quality_QM, 0.0).sum(axis=0) / np.maximum(num_M, 1)
    found_M: Floats = np.where(seen_M, plain_M, np.nan)
    cells = np.ix_(rows, seen_M)
    if not known_QM[cells].all():
        named = (None,) * rows.size if tasks is None else tuple(tasks)
        member_QG = _memberships([named[row] for row in np.flatnonzero(rows).tolist()])
        found_M[seen_M] = _solve(quality_QM[cells], known_QM[cells], member_QG).round(9)
    return found_M


def drawn_means(mean_M: Floats, num_M: Floats, variance: float) -> Floats:
    """Return each candidate's mean as it is expected to be on more queries, shape (M,).

    `variance` is that of one outcome around its candidate's mean, the same for all: so equal counts leave the
    order as it is, and a candidate of some lucky outcomes does not lead. NaN stays NaN.
    """
    known_M = np.isfinite(mean_M) & (num_M > 0)
    if known_M.sum() < 2 or variance <= 0.0:
        return mean_M
    mean_K, error_K = mean_M[known_M], variance / num_M[known_M]
    weight_K = 1.0 / error_K
    common = float(np.average(mean_K, weights=weight_K))
    beyond = float((weight_K * (mean_K - common) ** 2).sum()) - (mean_K.size - 1.0)
    between = max(beyond / float(weight_K.sum() - (weight_K**2).sum() / weight_K.sum()), 0.0)
    between = (mean_K.size * between + _LEAST_BETWEEN) / (mean_K.size + 1.0)
    trust_K = between / (between + error_K)
    common = float(np.average(mean_K, weights=trust_K))
    found_M = mean_M.copy()
    found_M[known_M] = (common + trust_K * (mean_K - common)).round(9)
    return found_M


def _solve(value_QM: Floats, known_QM: np.ndarray, member_QG: Floats) -> Floats:
    centre = float(value_QM[known_QM].mean())
    weight_QM, off_QM = known_QM.astype(np.float64), np.where(known_QM, value_QM - centre, 0.0)
    num_M, num_Q1 = weight_QM.sum(axis=0), weight_QM.sum(axis=1, keepdims=True)
    sum_M, sum_Q1 = off_QM.sum(axis=0), off_QM.sum(axis=1, keepdims=True)
    # What draws levels together: the precision of `own + task`, a diagonal minus one column for each task.
    drawn_G = _LEVEL_PRIOR / np.sqrt(_TASK_PRIOR + _LEVEL_PRIOR * member_QG.sum(axis=0))
    column_QG = member_QG * drawn_G
    if num_M.size <= num_Q1.size:
        left_Q1, right_QG = _levels(num_Q1, column_QG, sum_Q1), _levels(num_Q1, column_QG, weight_QM)
        gram_MM = np.diag(num_M) - weight_QM.T @ right_QG
        value_M: Floats = np.linalg.solve(gram_MM, sum_M - weight_QM.T @ left_Q1[:, 0])
        level_Q1 = left_Q1 - right_QG @ value_M[:, None]
        return np.asarray(value_M + level_Q1.mean() + centre)
    # More candidates than queries: the same by the levels (Woodbury), a system of the queries' size.
    shared_QM = weight_QM / num_M
    gram_QQ = np.diag(num_Q1[:, 0] + _LEVEL_PRIOR) - column_QG @ column_QG.T - shared_QM @ weight_QM.T
    level_Q = np.linalg.solve(gram_QQ, sum_Q1[:, 0] - shared_QM @ sum_M)
    many_M: Floats = (sum_M - weight_QM.T @ level_Q) / num_M
    return np.asarray(many_M + level_Q.mean() + centre)


def _levels(num_Q1: Floats, column_QG: Floats, given_QK: Floats) -> Floats:
    """Return `(diag(num + prior) - C C')^-1 given`, where no two columns of C share a row."""
    over_QK, over_QG = given_QK / (num_Q1 + _LEVEL_PRIOR), column_QG / (num_Q1 + _LEVEL_PRIOR)
    rest_G1 = 1.0 - (column_QG * over_QG).sum(axis=0)[:, None]
    found_QK: Floats = over_QK + over_QG @ ((column_QG.T @ over_QK) / rest_G1)
    return found_QK


def _memberships(tasks: Sequence[str | None]) -> Floats:
    """Return which query is of which task, shape (Q, G); G is 0 where they are all of one, or of none."""
    names = sorted({task or "" for task in tasks})
    if len(names) < 2:
        return np.zeros((len(tasks), 0))
    order = {name: column for column, name in enumerate(names)}
    return np.eye(len(names))[[order[task or ""] for task in tasks]]
