"""This module reports how good the routers' choices and estimates are, by five-fold cross-validation.

Quality only, at price 0, on the dense part of each table. `error` is the squared error of the estimated
quality as a share of the best single model's (the mean per candidate); below 1 the text helped.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import record
from turnout.core import OutcomeTable
from turnout.core.contracts import Router
from turnout.core.estimate import Estimate
from turnout.core.rng import make_rng
from turnout.evaluation import dense_part
from turnout.features import JoinedEmbedder, SignalsEmbedder, TextEmbedder
from turnout.routers import BestSingleRouter, GroupMeanRouter, KNNRouter, RidgeRouter

NAMES = ("llmrouter", "routerdc7", "zeroeval", "lookahead", "routellm_pair")
SEED = 0
FOLDS = 5


def make_routers(train: OutcomeTable) -> dict[str, Router]:
    """Return the routers, the embedder shared and fitted on the training part alone."""
    text = TextEmbedder().fit(train.queries)
    joined = JoinedEmbedder(embedders=(text, SignalsEmbedder()), weights=(2.0, 1.0)).fit(train.queries)
    return {
        "best_single": BestSingleRouter(),
        "group_mean": GroupMeanRouter(),
        "ridge": RidgeRouter(embedder=text),
        "knn": KNNRouter(embedder=text),
        "ridge_with_signals": RidgeRouter(embedder=joined),
        "knn_with_signals": KNNRouter(embedder=joined),
    }


def judge(estimate: Estimate, table: OutcomeTable) -> dict[str, np.ndarray]:
    """Return per query the quality of the choice and the squared error, and whether spread covers."""
    truth_QM = table.quality_QM
    rows = np.arange(len(truth_QM))
    return {
        "quality": truth_QM[rows, estimate.quality_QM.argmax(axis=1)],
        "squared": ((estimate.quality_QM - truth_QM) ** 2).mean(axis=1),
        "cost_ratio": estimate.cost_usd_QM.sum(axis=1) - table.cost_usd_QM.sum(axis=1),
    }


def measure(table: OutcomeTable) -> dict[str, object]:
    """Return the mean over all queries, each judged by the fold that did not see it."""
    fold_Q = make_rng(SEED, "folds").permutation(len(table.queries)) % FOLDS
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for fold in range(FOLDS):
        train, test = table.where(fold_Q != fold), table.where(fold_Q == fold)
        for name, router in make_routers(train).items():
            found.setdefault(name, []).append(judge(router.fit(train).estimate(test.queries), test))
    joined = {n: {k: np.concatenate([f[k] for f in folds]) for k in folds[0]} for n, folds in found.items()}
    single = joined["best_single"]
    total_usd = float(np.nansum(table.cost_usd_QM))
    summary: dict[str, object] = {
        "fingerprint": table.fingerprint,
        "queries": len(table.queries),
        "candidates": len(table.candidates),
        "random": float(table.quality_QM.mean()),
        "oracle": float(table.quality_QM.max(axis=1).mean()),
    }
    for name, values in joined.items():
        gain = values["quality"] - single["quality"]
        summary[name] = {
            "quality": float(values["quality"].mean()),
            "gain": float(gain.mean()),
            "gain_standard_error": float(gain.std() / np.sqrt(gain.size)),
            "error": float(values["squared"].mean() / single["squared"].mean()),
            "cost_bias": float(np.nansum(values["cost_ratio"]) / total_usd) if total_usd else None,
        }
    return summary


def main(only: list[str]) -> None:
    """Write `folds.json`."""
    result = {}
    for name, table in record.tables(*NAMES):
        if not only or name in only:
            result[name] = measure(dense_part(table))
            print(name, result[name], flush=True)
    print(record.write("folds", result, seed=SEED).name)


if __name__ == "__main__":
    main(sys.argv[1:])
