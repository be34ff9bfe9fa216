"""This module predicts from the length of the prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate, candidate_from_dict
from turnout.core.contracts import Router, State
from turnout.core.errors import TableError, sentence
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number


@final
class LengthBandsRouter(Router):
    """Predict each candidate's average over the training prompts of about the same length.

    Parameters
    ----------
    num_bands:
        Bands of equal numbers of prompts, cut by characters.
    prior:
        Weight of the candidate's overall average in each band, in observations, above 0.
    """

    def __init__(self, *, num_bands: int = 4, prior: float = 5.0) -> None:
        self.num_bands = check_count("LengthBandsRouter.num_bands", num_bands)
        self.prior = check_number("LengthBandsRouter.prior", prior, low=0.0, allow_low=False)
        self.candidates_: tuple[Candidate, ...] = ()
        self.arrays_: dict[str, np.ndarray] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether bands were learned."""
        return bool(self.arrays_)

    def fit(self, table: OutcomeTable) -> Self:
        """Average quality per band, and cost and latency overall; returns self."""
        if not table.observed_QM.any():
            raise TableError(
                sentence("LengthBandsRouter: the table holds no quality", do="grade some answers")
            )
        length_Q = _lengths(table.queries)
        edge = np.quantile(length_Q, np.linspace(0.0, 1.0, self.num_bands + 1)[1:-1])
        band_Q = np.searchsorted(edge, length_Q, side="right")
        mean_M, error_M = _mean(table.quality_QM, 0.0, np.nan), np.full(len(table.candidates), np.inf)
        quality, spread = [], []
        for band in range(self.num_bands):
            rows = band_Q == band
            num_M = table.observed_QM[rows].sum(axis=0)
            quality.append(_mean(table.quality_QM[rows], self.prior, mean_M))
            spread.append(np.where(np.isnan(mean_M), error_M, 0.5 / np.sqrt(num_M + self.prior)))
        self.candidates_ = table.candidates
        self.arrays_ = {
            "edge": edge,
            "quality": np.stack(quality),
            "spread": np.stack(spread),
            "cost_usd": _mean(table.cost_usd_QM, 0.0, np.nan),
            "latency_s": _mean(table.latency_s_QM, 0.0, np.nan),
        }
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the averages of each query's band."""
        self.require_fitted("estimate")
        learned = self.arrays_
        band_Q = np.searchsorted(learned["edge"], _lengths(queries), side="right")
        shape = (len(queries), len(self.candidates_))
        return make_estimate(
            self.candidates_,
            learned["quality"][band_Q],
            spread_QM=learned["spread"][band_Q],
            cost_usd_QM=np.broadcast_to(learned["cost_usd"], shape),
            latency_s_QM=np.broadcast_to(learned["latency_s"], shape),
        )

    def state(self) -> State:
        """Return the bands and the averages."""
        self.require_fitted("state")
        values = {"candidates": [candidate.to_dict() for candidate in self.candidates_]}
        return State(arrays=self.arrays_, values=values)

    def restore(self, state: State) -> None:
        """Take over bands and averages."""
        packed = state.values["candidates"]
        assert isinstance(packed, list)
        self.candidates_ = tuple(candidate_from_dict(value) for value in packed)
        self.arrays_ = dict(state.arrays)


def _lengths(queries: Sequence[Query]) -> np.ndarray:
    return np.array([len(query.words) for query in queries], np.float64)


def _mean(values_QM: Floats, prior: float, toward_M: Floats | float) -> Floats:
    """Return the mean of what is known in each column, drawn toward another; NaN where nothing is known."""
    known_QM = np.isfinite(values_QM)
    num_M = known_QM.sum(axis=0) + prior
    total_M = np.where(known_QM, values_QM, 0.0).sum(axis=0) + (prior * toward_M if prior else 0.0)
    return np.where(num_M > 0, total_M / np.where(num_M > 0, num_M, 1.0), np.nan)
