"""This module finds candidates by their fingerprints, nearest to the query in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind
from turnout.routers.fingerprints import Groups, learn_groups, unit_rows
from turnout.routers.ground import Lesson, learn_ground, read_probe
from turnout.routers.means import column_mean, means_of
from turnout.routers.neighbours import Array, Lists, build_lists, nearest
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.scale import fit_scale
from turnout.routers.neural.scored import Scored, scored_from, unit_of
from turnout.routers.packing import below, under

HIDDEN = 64
"""Width H of the query map."""
_LEAST_TEMPERATURE, _SLOPE, _PENALTY = 0.05, 0.25, 0.2
_EXACT_BELOW = 1_000
_RECALL = 0.95


@final
class CSCRRouter(Router):
    """Map queries into the space of the candidates' fingerprints; the cosine says who suits a query.

    Fingerprints come first and stay: what a candidate did on groups of probe prompts (`fingerprints`). The
    map learns to lie near somebody who was right in every band of cost: where a cheap and a dear candidate
    both were, it lies between the two, and leaves the choice to the price. So a newcomer needs its
    fingerprint alone, and choosing is one look-up of near fingerprints (`nearest`), in inverted lists where
    the pool is large.

    Source
    ------
    S181: R. Shirkavand et al., "Cost-Aware Contrastive Routing for LLMs", arXiv 2508.12491 (abstract), and
    its code, github.com/rezashkv/cscr at 3d685cb: the loss, its temperatures and penalty, a query map of two
    layers on a frozen encoder, and a pool that is searched by cosine.

    Differs
    -------
    A fingerprint is made of outcomes on probes, in place of token probabilities or of the perplexity of
    answers under GPT-2: those need the model itself, outcomes are in the table. Quality is graded in the
    loss; for right or wrong it is the code's. Bands hold equal numbers of candidates, 5 as in the paper
    (the code's default is the root of the pool). The paper chooses by `cosine - lambda * cost` among the 4
    nearest; here a line per candidate, fitted on held-out rows, makes cosines into qualities (`scale`), and
    a policy weighs cost. Inverted lists stand in for FAISS.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_bands:
        Number of cost bands; with 1, or where no cost is known, one right candidate is as good as another.
    seed:
        Of groups, start and batches.

    Units
    -----
    Spread is the standard error of the line from cosine to quality.

    Cost
    ----
    O(F H + H K + K M) per query for K groups; `nearest` O(K sqrt(M)). Fitting: at most 1,500 steps over
    batches of 256 rows.

    Raises
    ------
    MissingExtraError
        By `fit`, where torch is not installed.
    """

    def __init__(self, *, embedder: Embedder | None = None, num_bands: int = 5, seed: int = 0) -> None:
        if embedder is not None:
            check_kind("CSCRRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_bands = check_count("CSCRRouter.num_bands", num_bands)
        self.seed = check_count("CSCRRouter.seed", seed, low=0)
        self.scored_: Scored | None = None
        self.groups_: Groups | None = None
        self.net_: dict[str, np.ndarray] = {}
        self.print_MK: Array = np.zeros((0, 0), np.float32)
        self.lists_: tuple[Lists, np.ndarray] | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether a map was learned."""
        return self.scored_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Take the fingerprints, learn the map, then what a cosine is worth; returns self."""
        require_torch("CSCRRouter.fit")
        from turnout.routers.neural.cscr_net import CostSpectrum, bands_of, learn
        from turnout.routers.neural.descent import tensor

        ground, lesson = learn_ground(table, self.embedder)
        quality_NM, cost_M = lesson.targets.quality_QM, _costs(lesson)
        rng = make_rng(self.seed, "cscr")
        self.groups_ = learn_groups(lesson.x_NF, quality_NM, rng)
        self.print_MK = self.groups_.fingerprints(lesson.x_NF, quality_NM)
        band_M = tensor(bands_of(cost_M, self.num_bands))
        spectrum = CostSpectrum(tensor(cost_M), band_M, _LEAST_TEMPERATURE, _SLOPE, _PENALTY)
        unit = unit_of(lesson.x_NF)
        net, held_out = learn(lesson.x_NF / unit, quality_NM, self.print_MK, spectrum, HIDDEN, rng)
        self.net_ = {**net, "unit": np.array([unit], np.float32)}
        cosine_NM = self._cosine(lesson.x_NF[held_out])
        scale = fit_scale(cosine_NM, quality_NM[held_out], means_of(lesson.targets), is_relative=True)
        self.scored_ = Scored(ground, scale)
        self.lists_ = self._index()
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return what the cosines are worth."""
        scored = self._learned("estimate")
        x_QF = scored.ground.embed(queries)
        return scored.estimate(queries, x_QF, self._cosine(x_QF))

    def similarity(self, queries: Sequence[Query]) -> Floats:
        """Return the cosines of queries and candidates, shape (Q, M); NaN for one never observed."""
        ground = self._learned("similarity").ground
        return ground.spread_out(self._cosine(ground.embed(queries)), np.nan)

    def nearest(self, queries: Sequence[Query], k: int) -> list[list[str]]:
        """Return the names of the k candidates whose fingerprints are nearest to each query, nearest first.

        Pools of 1,000 and more are searched in inverted lists, which may miss one in twenty.
        """
        ground = self._learned("nearest").ground
        k = min(check_count("CSCRRouter.nearest: k", k), len(self.print_MK))
        z_QK = self.encode(queries)
        if self.lists_ is None:
            index_QK, cosine_QK = nearest(self.print_MK, z_QK, k)
        else:
            index_QK, cosine_QK = self.lists_[0].search(z_QK, k)
            index_QK = self.lists_[1][index_QK]
        order_QK = np.argsort(-cosine_QK, axis=1, kind="stable")
        names = {column: ground.candidates[at].name for at, column in enumerate(ground.place.tolist())}
        return [[names[at] for at in row] for row in np.take_along_axis(index_QK, order_QK, axis=1).tolist()]

    def encode(self, queries: Sequence[Query]) -> Array:
        """Return the queries in the space of fingerprints, (Q, K), of length 1; 0 for a blank one."""
        return self._encode(self._learned("encode").ground.embed(queries))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Take the fingerprint of one more candidate from its probe rows, the map as it is; returns self."""
        scored = self._learned("add_candidate")
        assert self.groups_ is not None
        lesson = read_probe(scored.ground, candidate, table)
        quality_N1 = lesson.targets.quality_QM
        print_1K = self.groups_.fingerprints(lesson.x_NF, quality_N1)
        cosine_N1 = (self._encode(lesson.x_NF) @ print_1K.T).astype(np.float64)
        line = scored.scale.newcomer(cosine_N1, quality_N1, means_of(lesson.targets))
        self.print_MK = np.concatenate([self.print_MK, print_1K])
        self.scored_ = scored.with_added(candidate, lesson, line)
        self.lists_ = self._index()
        return self

    def state(self) -> State:
        """Return groups, fingerprints, the map and the lines."""
        scored = self._learned("state")
        assert self.groups_ is not None
        own: dict[str, np.ndarray] = {
            "print": self.print_MK,
            "centre": self.groups_.centre_KF,
            "level": self.groups_.level_K,
        }
        return scored.state(self.embedder, {**own, **under("net.", self.net_)})

    def restore(self, state: State) -> None:
        """Take over groups, fingerprints, the map and the lines."""
        self.scored_ = scored_from(state, self.embedder)
        self.groups_ = Groups(state.arrays["centre"], state.arrays["level"])
        self.print_MK = state.arrays["print"]
        self.net_ = below("net.", state.arrays)
        self.lists_ = self._index()

    def _index(self) -> tuple[Lists, np.ndarray] | None:
        if len(self.print_MK) < _EXACT_BELOW:
            return None
        return build_lists(self.print_MK, k=4, recall=_RECALL, rng=make_rng(self.seed, "lists"))

    def _encode(self, x_QF: Array) -> Array:
        hidden_QH = np.maximum(x_QF / self.net_["unit"] @ self.net_["first"], 0.0)
        return unit_rows(hidden_QH @ self.net_["second"]).astype(np.float32)

    def _cosine(self, x_QF: Array) -> Floats:
        cosine_QM: Floats = (self._encode(x_QF) @ self.print_MK.T).astype(np.float64)
        return cosine_QM

    def _learned(self, move: str) -> Scored:
        self.require_fitted(move)
        assert self.scored_ is not None
        return self.scored_


def _costs(lesson: Lesson) -> Floats:
    """Return mean costs from 0, the cheapest, to 1, the dearest; who has none stands with the dearest."""
    cost_M = column_mean(lesson.targets_usd.cost_usd_QM)
    known_M = np.isfinite(cost_M)
    if not known_M.any():
        return np.zeros_like(cost_M)
    low, high = cost_M[known_M].min(), cost_M[known_M].max()
    return np.where(known_M, (cost_M - low) / max(high - low, 1e-300), 1.0)
