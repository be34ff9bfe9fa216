"""This module lets other projects' methods take part, on the same vectors: scikit-learn's regressors.

A peer learns from vectors and qualities, and predicts qualities; a cell that was not observed is the
candidate's mean. Its costs are the candidates' means, since none of them predicts cost.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from turnout.core.errors import MissingExtraError, sentence
from turnout.core.outcomes import Floats

Predict = Callable[[np.ndarray], Floats]


PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sklearn_knn": (
        "neighbors",
        "KNeighborsRegressor",
        {"n_neighbors": 40, "weights": "distance", "metric": "cosine"},
    ),
    "sklearn_ridge": ("linear_model", "RidgeCV", {"alphas": [0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0]}),
    "sklearn_mlp": ("neural_network", "MLPRegressor", {"hidden_layer_sizes": (64,), "early_stopping": True}),
    "sklearn_forest": ("ensemble", "RandomForestRegressor", {"n_estimators": 50, "min_samples_leaf": 20}),
    "sklearn_logistic": ("linear_model", "LogisticRegression", {"max_iter": 200}),
    "sklearn_boosted": ("ensemble", "HistGradientBoostingRegressor", {"max_iter": 50}),
}
"""Name -> module and class of scikit-learn, and settings; all else is as it comes."""

_SEEDED = ("sklearn_mlp", "sklearn_forest", "sklearn_boosted")
_ALONE = ("sklearn_logistic", "sklearn_boosted")
"""These predict one number, so there is one of them for each candidate, from the cells it was observed on."""


def fit_peer(name: str, x_NF: np.ndarray, quality_NM: Floats, *, seed: int) -> Predict:
    """Return the fitted prediction; raises `MissingExtraError` where the peer is not installed."""
    module, cls, settings = PEERS[name]
    try:
        maker = getattr(importlib.import_module(f"sklearn.{module}"), cls)
    except ImportError as error:
        raise MissingExtraError(
            sentence("this peer needs scikit-learn", got=str(error), do="pip install 'turnout[peers]'")
        ) from error
    mean_M = np.nan_to_num(np.nanmean(quality_NM, axis=0))
    made = {**settings, **({"random_state": seed} if name in _SEEDED else {})}
    if name in _ALONE:
        is_classifier = name == "sklearn_logistic"
        heads = [_head(maker(**made), x_NF, q_N, is_classifier=is_classifier) for q_N in quality_NM.T]
        return lambda x_QF: np.stack([head(x_QF) for head in heads], axis=1)
    model = maker(**made)
    model.fit(x_NF, np.where(np.isnan(quality_NM), mean_M, quality_NM))

    def predict(x_QF: np.ndarray) -> Floats:
        found: Floats = np.asarray(model.predict(x_QF), np.float64).reshape(len(x_QF), mean_M.size)
        return found

    return predict


def _head(model: Any, x_NF: np.ndarray, quality_N: Floats, *, is_classifier: bool) -> Predict:
    """Return the prediction of one candidate's quality.

    A classifier learns each outcome as a right answer with the weight of the quality and a wrong one with
    the rest, and predicts the chance of a right one.
    """
    known_N = np.isfinite(quality_N)
    x_NF, quality_N = x_NF[known_N], quality_N[known_N]
    if not quality_N.size or np.ptp(quality_N) == 0.0:
        value = float(quality_N[0]) if quality_N.size else 0.0
        return lambda x_QF: np.full(len(x_QF), value)
    if not is_classifier:
        model.fit(x_NF, quality_N)
        return lambda x_QF: np.asarray(model.predict(x_QF), np.float64)
    right_N = np.repeat([True, False], quality_N.size)
    model.fit(np.concatenate([x_NF, x_NF]), right_N, np.concatenate([quality_N, 1.0 - quality_N]))
    return lambda x_QF: np.asarray(model.predict_proba(x_QF)[:, 1], np.float64)
