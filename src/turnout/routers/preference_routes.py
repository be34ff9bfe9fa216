"""This module follows routes that a user wrote in plain language: what a text is about says whom to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_name, check_number
from turnout.routers.evidence import Evidence, arrays_of, evidence_from, learn_evidence
from turnout.routers.fingerprints import unit_rows
from turnout.routers.neighbours import Array
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.targets import seen_candidates

OTHER = "other"
"""The route of a query that no description is like."""
_BEHIND = 1e-6


@final
class PreferenceRoutesRouter(Router):
    """Match a query to the description that is most like it, and put that route's candidate first.

    Routes are what a user prefers, and no outcome overrules them: outcomes say how good and how dear the
    candidates are, and who comes next. A query like no description is `other`, and everybody stands at the
    average. A route whose candidate is not in the pool, or was never observed, waits until it joins.

    Source
    ------
    S123: Arch-Router, arXiv 2506.16655, read in notes on its prompt: routes as names with descriptions of a
    domain or an action, a query mapped to one of them or to `other`, and a map from routes to models.

    Differs
    -------
    The cosine of embeddings stands in for the language model of 1.5 billion weights that reads the routes;
    with the default embedder words that no training text has are not read, so a sentence encoder is better.
    Only the request is read, as text; the conversation is what its caller puts there.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    routes:
        Triples (name, description, candidate), a name once.
    floor:
        Cosine below which a description is not like a query, in [0, 1].

    Units
    -----
    Spread is the standard error of the candidate's mean quality.

    Cost
    ----
    O(F R + M) per query for R routes.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        routes: tuple[tuple[str, str, str], ...] = (),
        floor: float = 0.1,
    ) -> None:
        if embedder is not None:
            check_kind("PreferenceRoutesRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.routes = tuple((name, description, candidate) for name, description, candidate in routes)
        for route in self.routes:
            for text in route:
                check_name("PreferenceRoutesRouter.routes", text)
        names = [name for name, _, _ in self.routes]
        if len(set(names)) < len(names) or OTHER in names:
            raise InputError(
                sentence(
                    "PreferenceRoutesRouter.routes",
                    allowed=f"names once each, none of them {OTHER!r}",
                    got=names,
                )
            )
        self.floor = check_number("PreferenceRoutesRouter.floor", floor, low=0.0, high=1.0)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.route_RF: Array = np.zeros((0, 0), np.float32)
        self.evidence_: Evidence | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether candidates were averaged."""
        return self.pool_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Fit the embedder and average the candidates; returns self."""
        queries, targets, pool = read_pool(table)
        seen_candidates(targets)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        self.route_RF = unit_rows(np.asarray(self.embedder_.embed(self._descriptions()), np.float32))
        self.pool_ = pool
        self.evidence_ = learn_evidence(self._embed(queries), targets.quality_QM)
        return self

    def match(self, queries: Sequence[Query]) -> list[str]:
        """Return the name of each query's route, or `other`."""
        self.require_fitted("match")
        route_Q = self._match(self._embed(queries))
        return [OTHER if route < 0 else self.routes[route][0] for route in route_Q.tolist()]

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return averages, with the candidate of the route at its own and nobody above it."""
        _, pool = self._learned("estimate")
        x_QF = self._embed(queries)
        shape = (len(queries), len(pool.candidates))
        quality_QM = np.broadcast_to(pool.means.quality, shape).copy()
        column = {
            candidate.name: place for place, candidate in enumerate(pool.candidates) if pool.known_M[place]
        }
        for row, route in enumerate(self._match(x_QF).tolist()):
            chosen = column.get(self.routes[route][2]) if route >= 0 else None
            if chosen is not None:
                first = max(float(pool.means.quality[chosen]), _BEHIND)
                quality_QM[row] = np.minimum(quality_QM[row], first - _BEHIND)
                quality_QM[row, chosen] = first
        spread_QM = np.broadcast_to(pool.means.standard_error(), shape)
        if self.evidence_ is not None:
            spread_QM = self.evidence_.widen(spread_QM, x_QF)
        return pool.estimate(queries, quality_QM, spread_QM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Average one more candidate over its probe rows; routes to it count from now on; returns self."""
        _, pool = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        self.pool_ = pool.with_added(added)
        if self.evidence_ is not None:
            self.evidence_ = self.evidence_.with_texts(self._embed(queries), targets.quality_QM)
        return self

    def state(self) -> State:
        """Return the averages and the embedder."""
        embedder, pool = self._learned("state")
        return State(
            arrays={**pool.arrays(), "route": self.route_RF, **arrays_of(self.evidence_)},
            values=pool.values(),
            parts=embedder_parts(self.embedder, embedder),
        )

    def restore(self, state: State) -> None:
        """Take over the averages and the embedder."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        self.route_RF = state.arrays["route"]
        self.evidence_ = evidence_from(state.arrays)

    def _embed(self, queries: Sequence[Query]) -> Array:
        assert self.embedder_ is not None
        return np.asarray(self.embedder_.embed(queries), np.float32)

    def _match(self, x_QF: Array) -> Ints:
        """Return the place of each query's route, shape (Q,), -1 for `other`."""
        if not self.routes or not len(x_QF):
            return np.full(len(x_QF), -1, np.int64)
        cosine_QR = unit_rows(x_QF) @ self.route_RF.T
        # The first of descriptions that differ by rounding, whatever the batch.
        best_Q = np.round(cosine_QR.astype(np.float64), 5).argmax(axis=1)
        top_Q = cosine_QR[np.arange(len(x_QF)), best_Q]
        return np.where((top_Q >= self.floor) & (top_Q > 1e-6), best_Q, -1)

    def _descriptions(self) -> list[Query]:
        return [Query(id=name, text=description) for name, description, _ in self.routes]

    def _learned(self, move: str) -> tuple[Embedder, Pool]:
        self.require_fitted(move)
        assert self.embedder_ is not None
        assert self.pool_ is not None
        return self.embedder_, self.pool_
