"""This module picks and combines routers for a table, and judges the result where it did not look.

1. The table is cut into five folds, near-same texts together. Every learner is fitted without the first fold
   and predicts it; those that earn no weight there are out (staged elimination).
2. The others do the same for the other folds.
3. The blend that predicts a fold has weights learned on the other folds, and members that never saw it. So
   each query of the table has an estimate made without its outcomes; dial and guard are measured on these.
4. The deployed blend has the weights of all folds, and members fitted on the whole table.

Source: D. H. Wolpert, "Stacked generalization", 1992; M. J. van der Laan et al., "Super Learner", Statistical
Applications in Genetics and Molecular Biology 6(1), 2007, which judges weights by an outer cross-validation.
The members behind the weights of the other folds did learn from the fold that is judged; without that the
scheme would cost five times as much, and a dozen weights carry little over.

All constants are round numbers; none was tuned on a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.contracts import Embedder, Router
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.features import CachedEmbedder, TextEmbedder
from turnout.routers import BlendRouter
from turnout.routers.members import with_embedder
from turnout.routers.stacking import Weights, learn_weights
from turnout.training.cross_fit import Fold, cut, in_order, predict_fold
from turnout.training.learners import learners
from turnout.training.sharing import remember_vectors, share_embedders

NUM_FOLDS = 5
_MIN_WEIGHT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Auto:
    """A blend for a table, and what it would have said about every query of it."""

    router: BlendRouter
    """Fitted on the whole table."""
    estimate: Estimate
    """Of each query, by members and weights that never saw its outcomes."""
    fold_Q: Ints
    """The fold of each query."""
    x_QF: np.ndarray
    """The vectors of the queries."""
    about: dict[str, object]
    """Members, weights, errors and who was left out: JSON values."""


def learn_auto(
    table: OutcomeTable,
    *,
    tasks_given: bool = False,
    embedder: Embedder | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Auto:
    """Return the blend for `table`; `tasks_given` says that requests will name their task.

    The embedder (None is `TextEmbedder()`) learns from the texts of the table alone, once for all learners;
    those that read signals have their own (`learners`).
    Raises `TableError` for a table with fewer than five groups of texts.
    """
    progress("embed", 0, NUM_FOLDS + 2)
    given = TextEmbedder() if embedder is None else embedder
    embedder = given if given.is_fitted else given.clone().fit(table.queries)
    memory = CachedEmbedder(embedder=embedder, max_entries=max(len(table.queries), 1))
    x_QF = np.asarray(memory.embed(table.queries))
    fold_Q = cut(table, NUM_FOLDS, seed=seed)
    pool = learners(table, tasks_given=tasks_given)
    # Those with an embedder of their own have it fitted once for all folds too, and remembered.
    shared = share_embedders({name: with_embedder(one, memory) for name, one in pool.items()}, table.queries)
    folds = _fold_by_fold(remember_vectors(shared, len(table.queries)), table, fold_Q, progress)
    names = list(folds[-1].estimates)
    held = [
        fold.blend(names, weights_of([other for other in folds if other is not fold], names))
        for fold in folds
    ]
    estimate = in_order(folds, held)
    names = kept(folds, names, has_costs=table.has_costs)
    weights = weights_of(folds, names)
    progress(f"fit {', '.join(names)}", NUM_FOLDS + 1, NUM_FOLDS + 2)
    router = BlendRouter(
        members=tuple(pool[name] for name in names), weights=triples(weights), embedder=embedder
    ).fit(table)
    about: dict[str, object] = {
        "tasks_given": tasks_given,
        "folds": NUM_FOLDS,
        "members": {
            name: dict(zip(("own", "common", "cost"), triple, strict=True))
            for name, triple in zip(names, triples(weights), strict=True)
        },
        "left_out": sorted(set(pool) - set(names)),
        "not_tried": [] if "knn" in pool else ["knn"],
        "error": errors(folds, names, estimate, table),
    }
    return Auto(router=router, estimate=estimate, fold_Q=fold_Q, x_QF=x_QF, about=about)


def _fold_by_fold(
    pool: Mapping[str, Router], table: OutcomeTable, fold_Q: Ints, progress: Progress
) -> list[Fold]:
    """Return what the learners say about each fold; who earns nothing on the first one stops there."""
    folds: list[Fold] = []
    for number in range(NUM_FOLDS):
        progress(f"fold {number + 1}: {', '.join(pool)}", number + 1, NUM_FOLDS + 2)
        folds.append(predict_fold(pool, table, fold_Q == number))
        if number == 0:
            names = kept(folds, list(pool), has_costs=table.has_costs)
            pool = {name: pool[name] for name in names}
    return folds


def weights_of(folds: Sequence[Fold], names: Sequence[str]) -> Weights:
    """Return the weights of some learners over some folds."""
    return learn_weights([fold.weigh(names) for fold in folds])


def kept(folds: Sequence[Fold], names: Sequence[str], *, has_costs: bool) -> list[str]:
    """Return the learners that earn a weight on these folds, and the one that knows costs best.

    At least one stays, so that there is a router to judge: the one of the largest weight.
    """
    weights = weights_of(folds, names)
    best_K = np.maximum(weights.own_K, weights.common_K)
    is_kept_K = (best_K >= _MIN_WEIGHT) | (has_costs & (weights.cost_K > 0.0))
    is_kept_K[int(best_K.argmax())] = True
    return [name for name, is_kept in zip(names, is_kept_K.tolist(), strict=True) if is_kept]


def triples(weights: Weights) -> tuple[tuple[float, float, float], ...]:
    """Return the weights as the setting of a `BlendRouter`."""
    rows = np.stack([weights.own_K, weights.common_K, weights.cost_K], axis=1).tolist()
    return tuple((own, common, cost) for own, common, cost in rows)


def errors(
    folds: Sequence[Fold], names: Sequence[str], estimate: Estimate, table: OutcomeTable
) -> dict[str, float]:
    """Return squared errors of quality on unseen queries, as shares of that of the candidates' means."""
    base_QM = in_order(folds, [fold.base for fold in folds]).quality_QM
    off = _squared(base_QM, table.quality_QM)
    found = {name: in_order(folds, [fold.estimates[name] for fold in folds]) for name in names}
    every = {**found, "auto": estimate}
    return {name: _squared(e.quality_QM, table.quality_QM) / off if off else 1.0 for name, e in every.items()}


def _squared(found_QM: Floats, truth_QM: Floats) -> float:
    return float(np.nansum((found_QM - truth_QM) ** 2))
