"""This module plugs local means of quality and of cost, each with its own neighbourhood, into one rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind
from turnout.routers.ground import Ground, Lesson, ground_from, learn_ground, read_probe
from turnout.routers.local_means import LocalMeans, learn_local_means, local_means_from
from turnout.routers.packing import below, numbered


@final
class CarrotRouter(Router):
    """Estimate quality and cost apart, each by the plain mean of its own number of nearest prompts.

    The rule `argmax quality - price * cost` is then applied to the two estimates at any price, with nothing
    learned again (the policy `Best`). With k growing as N^(2g / (2g + d)), for smoothness g and d dimensions
    of text, the rule's excess risk falls at the best possible rate for every price at once.

    Source
    ------
    S57: S. Somerstep et al., "CARROT: A Cost Aware Rate Optimal Router", arXiv 2502.03261: the plug-in
    rule, its rate, and the estimators by nearest neighbours (cosine, k from 2 to 512 by powers of two).

    Differs
    -------
    k is chosen per candidate and per target by leave-one-out, not by five folds. Cost is learned as a ratio
    to a line in the length of the prompt, not as output tokens, so tables without tokens count. Where no
    neighbour was observed the candidate's mean stands in. The estimator by a fine-tuned RoBERTa is left out.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    options:
        Numbers of neighbours to choose from, rising.
    seed:
        Of the rows that choose k where there are more than 2,000, and of the inverted lists.

    Units
    -----
    Spread is `sqrt(leave-one-out squared error / k)`.

    Cost
    ----
    O(N F) per query below 4,096 stored ones, a part of that above; fit O(2,000 N F).
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        options: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512),
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("CarrotRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.options = tuple(check_count("CarrotRouter.options", k) for k in options)
        if not self.options or list(self.options) != sorted(set(self.options)):
            raise InputError(sentence("CarrotRouter.options", allowed="rising counts", got=options))
        self.seed = check_count("CarrotRouter.seed", seed, low=0)
        self.ground_: Ground | None = None
        self.banks_: list[LocalMeans] = []

    @property
    def is_fitted(self) -> bool:
        """Whether outcomes are stored."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Store the outcomes and choose the neighbourhoods; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        self.banks_ = [self._learn(lesson)]
        self.ground_ = ground
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the local means of quality, and of cost."""
        ground = self._learned("estimate")
        x_QF = ground.embed(queries)
        found = [bank.predict(x_QF) for bank in self.banks_]
        quality, ratio, spread = [], [], []
        for value_QC, error_QC in found:
            num = value_QC.shape[1] // 2
            quality.append(value_QC[:, :num])
            ratio.append(value_QC[:, num:])
            spread.append(error_QC[:, :num])
        parts = (np.concatenate(part, axis=1) for part in (quality, spread, ratio))
        return ground.estimate(queries, *parts, x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Store the probe rows of one more candidate with neighbourhoods of their own; returns self."""
        ground = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        self.banks_ = [*self.banks_, self._learn(lesson)]
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return stored outcomes and neighbourhoods."""
        ground = self._learned("state")
        arrays = numbered(bank.arrays() for bank in self.banks_)
        return ground.state(self.embedder, arrays, {"num_banks": len(self.banks_)})

    def restore(self, state: State) -> None:
        """Take over stored outcomes."""
        self.ground_ = ground_from(state, self.embedder)
        num = state.values["num_banks"]
        assert isinstance(num, int)
        self.banks_ = [local_means_from(below(f"{i}/", state.arrays)) for i in range(num)]

    def _learn(self, lesson: Lesson) -> LocalMeans:
        value_NC = np.concatenate([lesson.targets.quality_QM, lesson.targets.cost_usd_QM], axis=1)
        return learn_local_means(lesson.x_NF, value_NC, self.options, make_rng(self.seed, "rows"))

    def _learned(self, move: str) -> Ground:
        self.require_fitted(move)
        assert self.ground_ is not None
        return self.ground_
