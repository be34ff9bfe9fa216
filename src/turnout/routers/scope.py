"""This module predicts from fingerprints: how each candidate did on a few anchor prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.avengers import unit_range
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.kmeans import kmeans
from turnout.routers.local_means import LocalMeans, learn_local_means, local_means_from
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array
from turnout.routers.packing import below, numbered


@final
class ScopeRouter(Router):
    """Keep each candidate's outcomes on some anchors alone, and predict from the anchors nearest to a query.

    Nothing else of the table is used, so a newcomer that has answered the anchors is known as well as
    anybody; `anchors` lists them.

    Source
    ------
    S68: Models Under SCOPE, arXiv 2601.22323, read in notes on its code: stage 1, 250 anchors, the five
    nearest are read, and the mean over the anchors is mixed in; the final score is `score`.

    Differs
    -------
    The nearest anchors are averaged; stage 2, a language model that reasons over them, is left out: what is
    built is what it reads. Anchors are the prompts nearest to k-means centres. Cost is a ratio to a line in
    the length of the prompt in place of tokens. A candidate that was asked no anchor has its overall mean.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    num_anchors:
        At most so many prompts are kept.
    k:
        Anchors that are read for one query.
    share:
        Weight of the mean over all anchors, in [0, 1].
    seed:
        Of the anchors.

    Units
    -----
    Spread is `sqrt(leave-one-out squared error / k)` of the near anchors.

    Cost
    ----
    O(A (F + log A)) per query for A anchors; fit clusters the prompts.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        num_anchors: int = 250,
        k: int = 5,
        share: float = 0.3,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("ScopeRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_anchors = check_count("ScopeRouter.num_anchors", num_anchors)
        self.k = check_count("ScopeRouter.k", k)
        self.share = check_number("ScopeRouter.share", share, low=0.0, high=1.0)
        self.seed = check_count("ScopeRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.anchors_: tuple[tuple[str, str | None], ...] = ()
        self.banks_: list[LocalMeans] = []

    @property
    def is_fitted(self) -> bool:
        """Whether fingerprints are stored."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Choose the anchors and keep what the candidates did on them; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        rows = anchor_rows(lesson.x_NF, self.num_anchors, make_rng(self.seed, "anchors"))
        queries = [lesson.queries[row] for row in rows]
        self.anchors_ = tuple((query.id, query.text) for query in queries)
        self.banks_ = [self._store(lesson, rows)]
        self.ground_ = ground
        return self

    def anchors(self) -> list[Query]:
        """Return the prompts that a newcomer should answer."""
        self.require_fitted("anchors")
        return [Query(id=name, text=text) for name, text in self.anchors_]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the mix of near anchors and all anchors."""
        ground = self._learned("estimate")
        x_QF = ground.embed(queries)
        (quality_QM, ratio_QM, spread_QM), general = self._near(x_QF)
        quality_QM = self.share * general[0] + (1.0 - self.share) * quality_QM
        ratio_QM = self.share * general[1] + (1.0 - self.share) * ratio_QM
        return ground.estimate(queries, quality_QM, spread_QM, ratio_QM, x_QF=x_QF)

    def score(self, queries: Sequence[Query], *, preference: float) -> Floats:
        """Return the published score, shape (Q, M): the larger, the better; NaN where quality is unknown.

        `w (a A + (1 - a)(1 - C)^s) + (1 - w)(a p + (1 - a)(1 - c)^s)` with a the preference for quality in
        [0, 1], s = 2 (1 + 2 (1 - a)), w = 0.3 (0.5 + 0.5 a). A and C are means over the anchors, scaled to
        [0, 1] over the pool; p is what the near anchors say, and c their cost, scaled likewise.
        """
        a = check_number("ScopeRouter.score: preference", preference, low=0.0, high=1.0)
        ground = self._learned("score")
        near_QC, mean_QC = self._near(ground.embed(queries))
        lines_QM = ground.charges.lines(queries)

        def cost(ratio_QM: Floats) -> Floats:
            return unit_range(ground.spread_out(ratio_QM, np.nan) * lines_QM)

        power, weight = 2.0 * (1.0 + 2.0 * (1.0 - a)), 0.3 * (0.5 + 0.5 * a)
        general_QM = unit_range(ground.spread_out(mean_QC[0], np.nan))
        first_QM = a * general_QM + (1.0 - a) * (1.0 - cost(mean_QC[1])) ** power
        near_QM = ground.spread_out(near_QC[0], np.nan)
        second_QM = a * near_QM + (1.0 - a) * (1.0 - cost(near_QC[1])) ** power
        score_QM: Floats = weight * first_QM + (1.0 - weight) * second_QM
        return score_QM

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Keep what one more candidate did on its probe prompts, the anchors or others; returns self."""
        ground = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        self.banks_ = [*self.banks_, self._store(lesson, np.arange(len(lesson.queries)))]
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return anchors and fingerprints."""
        ground = self._learned("state")
        arrays = numbered(bank.arrays() for bank in self.banks_)
        anchors = [list(anchor) for anchor in self.anchors_]
        return ground.state(self.embedder, arrays, {"num_banks": len(self.banks_), "anchors": anchors})

    def restore(self, state: State) -> None:
        """Take over anchors and fingerprints."""
        self.ground_ = ground_from(state, self.embedder)
        num, anchors = state.values["num_banks"], state.values["anchors"]
        assert isinstance(num, int)
        assert isinstance(anchors, list)
        self.anchors_ = tuple((name, text) for name, text in anchors)
        self.banks_ = [local_means_from(below(f"{i}/", state.arrays)) for i in range(num)]

    def _store(self, lesson: Lesson, rows: np.ndarray) -> LocalMeans:
        value_NC = np.concatenate([lesson.targets.quality_QM, lesson.targets.cost_usd_QM], axis=1)
        bank = learn_local_means(lesson.x_NF[rows], value_NC[rows], (self.k,), make_rng(self.seed, "rows"))
        return replace(bank, mean_C=np.where(np.isnan(bank.mean_C), column_mean(value_NC), bank.mean_C))

    def _near(self, x_QF: Array) -> tuple[tuple[Floats, Floats, Floats], tuple[Floats, Floats]]:
        """Return (quality, ratio, spread) of the near anchors, then (quality, ratio) of all, each (Q, M)."""
        quality, ratio, spread, all_quality, all_ratio = [], [], [], [], []
        for bank in self.banks_:
            value_QC, error_QC = bank.predict(x_QF)
            num = value_QC.shape[1] // 2
            quality.append(value_QC[:, :num])
            ratio.append(value_QC[:, num:])
            spread.append(error_QC[:, :num])
            all_quality.append(bank.mean_C[:num])
            all_ratio.append(bank.mean_C[num:])
        wide = (len(x_QF), 1)
        return (np.hstack(quality), np.hstack(ratio), np.hstack(spread)), (
            np.tile(np.hstack(all_quality), wide),
            np.tile(np.hstack(all_ratio), wide),
        )

    def _learned(self, move: str) -> Ground:
        self.require_fitted(move)
        assert self.ground_ is not None
        return self.ground_


def anchor_rows(x_NF: Array, num: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows nearest to k-means centres, rising, each once: at most `num`."""
    if len(x_NF) <= num:
        return np.arange(len(x_NF))
    centre_KF = kmeans(x_NF, num, rng)
    half_N = 0.5 * np.square(x_NF).sum(axis=1)
    rows: np.ndarray = np.unique((centre_KF @ x_NF.T - half_N).argmax(axis=1))
    return rows
