"""This module reads a candidate from examples in context, attended to by one shared layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind
from turnout.routers.ground import Ground, ground_from, learn_ground, read_probe
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array
from turnout.routers.profile_attention import Attention, learn_attention


@dataclass(frozen=True, slots=True)
class _Profile:
    """Examples of M candidates; the last row is each one's mean."""

    key_KD: Array
    value_KM: Floats
    known_KM: Floats


@final
class ICLRouter(Router):
    """Predict from examples in context: pairs of a query and how the candidate did, attended to by a layer.

    The layer is shared and never sees who a candidate is, so candidates with equal examples get equal
    estimates, and what it learned about texts from the old ones serves a newcomer at its first probes.

    Source
    ------
    S203: ICL-Router, arXiv 2510.09719, read in notes alone: a candidate as pairs of a query vector and right
    or wrong, a router that learns from them in context, and a newcomer as a new profile.

    Differs
    -------
    One attention layer over the embedding stands in for the language model that reads the vectors, and its
    first stage (to reconstruct queries) is left out with it. Quality is graded, a candidate's mean is one
    more example, cost follows from the length of the prompt.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_examples:
        At most so many examples are kept per profile, spread evenly over the texts in alphabetical order.
    seed:
        Of the order of descent.

    Units
    -----
    Spread is `sqrt(q (1 - q) * sum of squared shares)`, a share of a fair coin included.

    Cost
    ----
    O(F D + K (D + M)) per query for K examples; fit O(300 * 256 K (F + M)).
    """

    def __init__(self, *, embedder: Embedder | None = None, num_examples: int = 1_000, seed: int = 0) -> None:
        if embedder is not None:
            check_kind("ICLRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_examples = check_count("ICLRouter.num_examples", num_examples)
        self.seed = check_count("ICLRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.attention_: Attention | None = None
        self.profiles_: list[_Profile] = []

    @property
    def is_fitted(self) -> bool:
        """Whether the layer was learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the layer, and keep the examples; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        quality_NM = lesson.targets.quality_QM
        rows_K = self._rows(len(quality_NM))
        self.attention_ = learn_attention(lesson.x_NF, quality_NM, rows_K, make_rng(self.seed, "layer"))
        self.profiles_ = [_profile(self.attention_, lesson.x_NF, quality_NM, rows_K)]
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return what the layer reads from each profile."""
        ground, attention = self._learned("estimate")
        x_QF = ground.embed(queries)
        found = [
            attention.read(x_QF, profile.key_KD, profile.known_KM, profile.value_KM)
            for profile in self.profiles_
        ]
        quality_QM, squares_QM = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        # Drawn to a half by two examples: what never happened may.
        num_M = np.concatenate([profile.known_KM[:-1].sum(axis=0) for profile in self.profiles_])
        drawn_QM = (num_M * quality_QM + 1.0) / (num_M + 2.0)
        variance_QM = drawn_QM * (1.0 - drawn_QM)
        return ground.estimate(queries, quality_QM, np.sqrt(variance_QM * squares_QM), x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Keep the examples of one more candidate, the layer as it is; returns self."""
        ground, attention = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        rows_K = self._rows(len(lesson.queries))
        profile = _profile(attention, lesson.x_NF, lesson.targets.quality_QM, rows_K)
        self.profiles_ = [*self.profiles_, profile]
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the layer and the profiles."""
        ground, attention = self._learned("state")
        arrays: dict[str, np.ndarray] = {"weight": attention.weight_FD, "threshold": attention.threshold}
        for i, one in enumerate(self.profiles_):
            arrays |= {f"{i}/key": one.key_KD, f"{i}/value": one.value_KM, f"{i}/known": one.known_KM}
        return ground.state(self.embedder, arrays, {"num_profiles": len(self.profiles_)})

    def restore(self, state: State) -> None:
        """Take over the layer and the profiles."""
        self.ground_ = ground_from(state, self.embedder)
        of, num = state.arrays, state.values["num_profiles"]
        assert isinstance(num, int)
        self.attention_ = Attention(of["weight"], of["threshold"])
        self.profiles_ = [_Profile(of[f"{i}/key"], of[f"{i}/value"], of[f"{i}/known"]) for i in range(num)]

    def _rows(self, num: int) -> Ints:
        rows: Ints = np.unique(np.linspace(0, num - 1, min(num, self.num_examples)).astype(np.int64))
        return rows

    def _learned(self, move: str) -> tuple[Ground, Attention]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.attention_ is not None
        return self.ground_, self.attention_


def _profile(attention: Attention, x_NF: Array, quality_NM: Floats, rows_K: Ints) -> _Profile:
    key_KD = attention.keys(x_NF[rows_K])
    known_KM = np.isfinite(quality_NM[rows_K]).astype(np.float64)
    value_KM = np.nan_to_num(quality_NM[rows_K])
    return _Profile(
        np.vstack([key_KD, np.zeros((1, key_KD.shape[1]), np.float32)]),
        np.vstack([value_KM, column_mean(quality_NM)]),
        np.vstack([known_KM, np.ones(known_KM.shape[1])]),
    )
