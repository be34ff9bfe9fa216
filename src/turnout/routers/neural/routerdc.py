"""This module routes by the cosine of a query and a candidate in one learned space."""

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
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.fingerprints import unit_rows
from turnout.routers.ground import learn_ground, read_probe
from turnout.routers.means import means_of
from turnout.routers.neighbours import Array
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.newcomer import find_direction
from turnout.routers.neural.scale import fit_scale
from turnout.routers.neural.scored import Scored, scored_from

WIDTH = 64
"""Length D of the vectors."""


@final
class RouterDCRouter(Router):
    """Learn a map of queries and a vector per candidate; the cosine of the two says who suits a query.

    Two contrastive losses are added: of queries and candidates (the best candidates of a query are drawn to
    it, the worst pushed away) and of queries and queries (one of the same cluster is drawn, those of others
    are pushed away). Both are written out in `contrastive`.

    Source
    ------
    S109: S. Chen et al., "RouterDC: Query-Based Router by Dual Contrastive Learning for Assembling Large
    Language Models", arXiv 2409.19886 (abstract), and its code, github.com/shuhao02/RouterDC at 0b8fd02.

    Differs
    -------
    The encoder is the embedder, frozen, under a learned linear map, in place of mDeBERTa; clusters are
    k-means on its vectors, without t-SNE. The code takes a score above 0 for a positive and one up to 0.5
    for a negative, so that one candidate may be both; here a negative is worse than its positive, and the
    pair weighs by how much. The code breaks ties by column, may draw a query as its own partner, gives the
    sample-sample loss by task the weight 0, and keeps the checkpoint of the best mean on the test sets;
    here ties are broken by chance, a partner is another query, and held-out rows of training choose. A
    cosine is no quality: a line per candidate, fitted on held-out rows, makes it one (`scale`). The paper
    knows no newcomer: here one gets the direction in which its probe rows gain, by ridge.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    temperature:
        What cosines are divided by in the losses (1 in the code).
    sample_weight:
        Weight of the sample-sample loss by cluster, at least 0 (1 in the script of the code).
    seed:
        Of start, batches, ties and partners.

    Units
    -----
    Spread is the standard error of the line from cosine to quality.

    Cost
    ----
    O(F D + M D) per query, with D = 64. Fitting: at most 1,500 steps over batches of 256 rows.

    Raises
    ------
    MissingExtraError
        By `fit`, where torch is not installed.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        temperature: float = 1.0,
        sample_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("RouterDCRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.temperature = check_number("RouterDCRouter.temperature", temperature, low=0.01, high=100.0)
        self.sample_weight = check_number("RouterDCRouter.sample_weight", sample_weight, low=0.0, high=1e3)
        self.seed = check_count("RouterDCRouter.seed", seed, low=0)
        self.weight_FD: Array = np.zeros((0, WIDTH), np.float32)
        self.vector_MD: Array = np.zeros((0, WIDTH), np.float32)
        self.scored_: Scored | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether vectors were learned."""
        return self.scored_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the map and the vectors, then what a cosine is worth; returns self."""
        require_torch("RouterDCRouter.fit")
        from turnout.routers.neural.contrastive import learn

        ground, lesson = learn_ground(table, self.embedder)
        quality_NM = lesson.targets.quality_QM
        self.weight_FD, self.vector_MD, held_out = learn(
            lesson.x_NF,
            quality_NM,
            width=WIDTH,
            temperature=self.temperature,
            sample_weight=self.sample_weight,
            rng=make_rng(self.seed, "routerdc"),
        )
        cosine_NM = self._cosine(lesson.x_NF[held_out])
        means = means_of(lesson.targets)
        scale = fit_scale(cosine_NM, quality_NM[held_out], means, is_relative=True)
        self.scored_ = Scored(ground, scale)
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

    def encode(self, queries: Sequence[Query]) -> Array:
        """Return the queries' vectors of length 1 in the learned space, (Q, D); 0 for a blank one."""
        ground = self._learned("encode").ground
        return unit_rows(ground.embed(queries) @ self.weight_FD)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Find the direction in which the probe rows of one more candidate gain; returns self."""
        scored = self._learned("add_candidate")
        lesson = read_probe(scored.ground, candidate, table)
        z_ND = unit_rows(lesson.x_NF @ self.weight_FD)
        found = find_direction(z_ND, lesson)
        vector_1D = unit_rows(found.weight_D[None])
        # What the other rows say of a row, in the unit of the cosine: a row's own cosine was learned from it.
        length = max(float(np.linalg.norm(found.weight_D)), 1e-12)
        cosine_N1 = (found.left_out_N1 - found.level) / length + float(found.centre_D @ vector_1D[0])
        line = fit_scale(cosine_N1, found.quality_N1, means_of(lesson.targets))
        self.vector_MD = np.concatenate([self.vector_MD, vector_1D.astype(np.float32)])
        self.scored_ = scored.with_added(candidate, lesson, line)
        return self

    def state(self) -> State:
        """Return the map, the vectors and the lines."""
        learned = {"weight": self.weight_FD, "vector": self.vector_MD}
        return self._learned("state").state(self.embedder, learned)

    def restore(self, state: State) -> None:
        """Take over the map, the vectors and the lines."""
        self.scored_ = scored_from(state, self.embedder)
        self.weight_FD, self.vector_MD = state.arrays["weight"], state.arrays["vector"]

    def _cosine(self, x_QF: Array) -> Floats:
        cosine_QM: Floats = (unit_rows(x_QF @ self.weight_FD) @ unit_rows(self.vector_MD).T).astype(
            np.float64
        )
        return cosine_QM

    def _learned(self, move: str) -> Scored:
        self.require_fitted(move)
        assert self.scored_ is not None
        return self.scored_
