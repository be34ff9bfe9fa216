"""This module learns who beats whom on which text: low-rank factors of pairwise preference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_choice, check_count, check_kind, check_number
from turnout.routers.adam import sigmoid
from turnout.routers.bradley_terry import all_pairs, outcome_of
from turnout.routers.factors import Directions, learn_preferences
from turnout.routers.ground import Ground, ground_from, learn_ground, read_probe
from turnout.routers.heads import Heads, heads_from, learn_heads
from turnout.routers.logistic_vectors import Prior, Vectors, place
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array
from turnout.routers.packing import below, under

_PENALTY = 3.0
_MAX_REFERENCES = 24
_MAX_ITEMS = 100_000
_LEVEL_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)


@final
class PreferenceFactorsRouter(Router):
    """Learn `P(m beats n on x) = sigmoid(s_m(x) - s_n(x))` from comparisons; `s_m(x) = (x W) . v_m + c_m`.

    Only who is better counts: what is added to everybody's quality on a query moves no score.

    Source
    ------
    S91: I. Ong et al., "RouteLLM", arXiv 2406.18665, section 4.2, matrix factorisation: the score
    `w . (v_m * (W x))` of a model on a query, fitted by cross entropy to pairwise preference.

    Differs
    -------
    w is part of v. Between two candidates this is the section's text classifier as well, a logistic
    regression of who wins on the text (there on BERT): any linear score of a pair is of rank one. Comparisons
    are made from recorded qualities, graded or by sign, of all pairs of at most 24 candidates; no noise is
    added to the embedding, both factors are penalised. A win probability becomes a quality: `q_m = level(x) +
    mean_n (2 P(m beats n) - 1)`, exact for graded comparisons, with a ridge head for the mean quality of
    those 24, of which comparisons do not tell. Then every candidate, old or new, is placed against them.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_dims:
        Number of directions; 128 in the paper, on vectors of length 1,536.
    labels:
        `graded` compares by the difference of qualities; `sign` by win, tie or loss alone, as published.
    prior:
        Precision of the prior of a vector, above 0.
    seed:
        Of the start and order of descent.

    Units
    -----
    Spread adds the squared errors of the level and of the score, the directions taken as known.

    Cost
    ----
    O(F D + M (D^2 + 24)) per query.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        num_dims: int = 6,
        labels: Literal["graded", "sign"] = "graded",
        prior: float = 1.0,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("PreferenceFactorsRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_dims = check_count("PreferenceFactorsRouter.num_dims", num_dims, high=64)
        self.labels = check_choice("PreferenceFactorsRouter.labels", labels, ("graded", "sign"))
        self.prior = check_number("PreferenceFactorsRouter.prior", prior, low=0.0, allow_low=False)
        self.seed = check_count("PreferenceFactorsRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.directions_: Directions | None = None
        self.vectors_: Vectors | None = None
        self.level_ = Heads([], np.zeros(0))
        self.reference_RD: Floats = np.zeros((0, 0))
        self.mean_R: Floats = np.zeros(0)
        self.centre_D: Floats = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether directions were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn directions from comparisons, then place every candidate; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        quality_NM, num = lesson.targets.quality_QM, len(lesson.names)
        chosen_R = np.unique(np.linspace(0, num - 1, min(num, _MAX_REFERENCES)).astype(np.int64))
        quality_NR = quality_NM[:, chosen_R]
        pairs = all_pairs(chosen_R.size)
        won_NP = outcome_of(quality_NR[:, pairs[0]] - quality_NR[:, pairs[1]], self.labels)
        self.directions_, self.reference_RD = learn_preferences(
            lesson.x_NF,
            won_NP,
            pairs,
            chosen_R.size,
            (self.num_dims, _PENALTY),
            make_rng(self.seed, "factors"),
        )
        self.centre_D, self.mean_R = self.reference_RD.mean(axis=0), column_mean(quality_NR)
        self._learn_level(lesson.x_NF, quality_NR)
        self.vectors_ = self._place(self.directions_.read(lesson.x_NF), quality_NM, quality_NR)
        self.ground_ = ground
        return self

    def scores(self, queries: Sequence[Query]) -> Floats:
        """Return s of every learned candidate, shape (Q, M), NaN for the stranger; differences mean wins."""
        ground, directions, vectors = self._learned("scores")
        score_QM: Floats = directions.read(ground.embed(queries)) @ vectors.mean_MD.T
        return ground.spread_out(score_QM, np.nan)

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return qualities that follow from the probabilities of winning."""
        ground, directions, vectors = self._learned("estimate")
        x_QF = ground.embed(queries)
        h_QD = directions.read(x_QF)
        score_QM, other_QR = h_QD @ vectors.mean_MD.T, h_QD @ self.reference_RD.T
        gain_QM, slope_QM = np.zeros_like(score_QM), np.zeros_like(score_QM)
        for other_Q in other_QR.T:
            p_QM = sigmoid(score_QM - other_Q[:, None])
            gain_QM += (2.0 * p_QM - 1.0) / len(self.reference_RD)
            slope_QM += 2.0 * p_QM * (1.0 - p_QM) / len(self.reference_RD)
        level_QH, level_error_QH = self.level_.predict(x_QF)
        quality_QM = self.mean_R.mean() + level_QH + gain_QM
        plain_QM, error_QM = vectors.predict(h_QD, np.zeros(len(h_QD)))
        deviation_QM = error_QM / np.maximum(plain_QM * (1.0 - plain_QM), 1e-4)
        spread_QM = np.hypot(slope_QM * deviation_QM, level_error_QH)
        return ground.estimate(queries, quality_QM, spread_QM, x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Place one more candidate against what is expected of the references on its probe rows."""
        ground, directions, vectors = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        h_ND = directions.read(lesson.x_NF)
        other_NR = h_ND @ self.reference_RD.T
        p_NRR = sigmoid(other_NR[:, :, None] - other_NR[:, None, :])
        expected_NR = (2.0 * p_NRR - 1.0).mean(axis=2) + self.level_.predict(lesson.x_NF)[0]
        added = self._place(h_ND, lesson.targets.quality_QM, expected_NR + self.mean_R.mean())
        self.vectors_ = vectors.with_added(added)
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return directions, vectors and the level."""
        ground, directions, vectors = self._learned("state")
        arrays: dict[str, np.ndarray] = {
            "weight": directions.weight_FD,
            "vector": vectors.mean_MD,
            "covariance": vectors.covariance_MDD,
            "reference": self.reference_RD,
            "mean": self.mean_R,
            "centre": self.centre_D,
        }
        level = under("level:", self.level_.arrays())
        return ground.state(self.embedder, {**arrays, **level})

    def restore(self, state: State) -> None:
        """Take over directions, vectors and the level."""
        self.ground_ = ground_from(state, self.embedder)
        of = state.arrays
        self.directions_ = Directions(of["weight"])
        self.vectors_ = Vectors(of["vector"], of["covariance"])
        self.reference_RD, self.mean_R, self.centre_D = of["reference"], of["mean"], of["centre"]
        self.level_ = heads_from(below("level:", of))

    def _learn_level(self, x_NF: Array, quality_NR: Floats) -> None:
        """Fit how much better than usual the references do on a query."""
        away_NR = quality_NR - self.mean_R
        level_N1 = column_mean(away_NR.T)[:, None]
        heads = learn_heads(x_NF.astype(np.float64), level_N1, np.zeros(1), _LEVEL_PENALTIES)
        self.level_ = Heads(heads, np.zeros(1))

    def _place(self, h_ND: Floats, quality_NM: Floats, other_NR: Floats) -> Vectors:
        """Return the vectors of candidates compared with references on the same rows."""
        rows = np.arange(len(h_ND))
        most = max(_MAX_ITEMS // max(other_NR.shape[1], 1), 1)
        if rows.size > most:
            rows = np.unique(np.linspace(0, rows.size - 1, most).astype(np.int64))
        score_KR = h_ND[rows] @ self.reference_RD.T
        parts = []
        for reference in range(other_NR.shape[1]):
            difference_KM = quality_NM[rows] - other_NR[rows, reference][:, None]
            parts.append(outcome_of(difference_KM, self.labels))
        # One item per row and reference; each counts for its share, so that a row counts once.
        items_KD = np.tile(h_ND[rows], (len(parts), 1))
        prior = Prior(self.centre_D, self.prior * len(parts))
        found = place(items_KD, -score_KR.T.ravel(), np.concatenate(parts), prior)
        return Vectors(found.mean_MD, found.covariance_MDD * len(parts))

    def _learned(self, move: str) -> tuple[Ground, Directions, Vectors]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.directions_ is not None
        assert self.vectors_ is not None
        return self.ground_, self.directions_, self.vectors_
