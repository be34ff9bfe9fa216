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
}
"""Name -> module and class of scikit-learn, and settings; all else is as it comes."""

_SEEDED = ("sklearn_mlp", "sklearn_forest")


def fit_peer(name: str, x_NF: np.ndarray, quality_NM: Floats, *, seed: int) -> Predict:
    """Return the fitted prediction; raises `MissingExtraError` where the peer is not installed."""
    module, cls, settings = PEERS[name]
    try:
        maker = getattr(importlib.import_module(f"sklearn.{module}"), cls)
    except ImportError as error:
        raise MissingExtraError(
            sentence("this peer needs scikit-learn", got=str(error), do="pip install 'turnout[peers]'")
        ) from error
    model = maker(**settings, **({"random_state": seed} if name in _SEEDED else {}))
    mean_M = np.nan_to_num(np.nanmean(quality_NM, axis=0))
    model.fit(x_NF, np.where(np.isnan(quality_NM), mean_M, quality_NM))

    def predict(x_QF: np.ndarray) -> Floats:
        found: Floats = np.asarray(model.predict(x_QF), np.float64).reshape(len(x_QF), mean_M.size)
        return found

    return predict
