"""This module blends several routers by weights that they earned on queries they had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Configured, Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import Bools, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.features.cached import CachedEmbedder
from turnout.routers.best_single import BestSingleRouter
from turnout.routers.folds import fold_of
from turnout.routers.inferred_group import InferredGroupRouter
from turnout.routers.knn import KNNRouter
from turnout.routers.members import blend, hold_out, restored, with_embedder
from turnout.routers.packing import below
from turnout.routers.reader import fitted_embedder
from turnout.routers.ridge import RidgeRouter
from turnout.routers.stacking import LARGEST, Weights, learn_weights
from turnout.routers.targets import read_targets

_CHUNK = 1_024


@final
class BlendRouter(Router):
    """Add up what several routers predict, each weighed by how well it did on queries it had not seen.

    Every member is fitted without a fold and predicts it; the weights of least squared error on all folds,
    none negative, are kept, and the members are fitted again on everything (`stacking`). Weights may sum to
    less than 1: then the candidates' means hold the rest, and members that know nothing count for nothing.
    Members that disagree widen the spread.

    Source
    ------
    D. H. Wolpert, "Stacked generalization", 1992; L. Breiman, "Stacked regressions", 1996. B.
    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles",
    2017, section 2.4, for the variance of a mixture.

    Differs
    -------
    What tells candidates apart and what they have in common are weighed apart; cost and latency are those of
    the one member that predicted cost best.

    Parameters
    ----------
    members:
        Unfitted routers; None is ridge, kNN and inferred groups.
    weights:
        Of each member: own part, common part, cost; None learns them. Given ones cost one fit per member.
    embedder:
        Shared by all members that have none of their own; None is `TextEmbedder()`.
    num_folds:
        Folds behind the weights, at least 2.
    seed:
        Of the folds.

    Units
    -----
    Spread is the deviation of the mixture of members.

    Cost
    ----
    One embedding and the members' own cost per query; fit is `num_folds + 1` fits of every member.
    """

    def __init__(
        self,
        *,
        members: tuple[Router, ...] | None = None,
        weights: tuple[tuple[float, float, float], ...] | None = None,
        embedder: Embedder | None = None,
        num_folds: int = 5,
        seed: int = 0,
    ) -> None:
        if embedder is not None:
            check_kind("BlendRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.members = None if members is None else _checked_members(members)
        self.weights = None if weights is None else _checked_weights(weights, len(self._given))
        self.num_folds = check_count("BlendRouter.num_folds", num_folds, low=2)
        self.seed = check_count("BlendRouter.seed", seed, low=0)
        self.embedder_: Embedder | None = None
        self.members_: tuple[Router, ...] = ()
        self.base_ = BestSingleRouter()
        self.weights_: Weights | None = None
        self.pool_: Bools | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether the members were learned."""
        return self.weights_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Weigh the members on folds, then fit them on everything; returns self."""
        queries, _ = read_targets(table)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        memory = CachedEmbedder(embedder=self.embedder_, max_entries=max(len(queries), 1))
        members = [with_embedder(member, memory) for member in self._given]
        weights = self._learn(table, members) if self.weights is None else _weights_of(self.weights)
        learned = [member.clone().fit(table) for member in members]
        self.base_ = BestSingleRouter().fit(table)
        self.pool_ = np.isfinite(self.base_.estimate(queries[:1]).quality_QM[0])
        self.weights_ = weights
        self._take([member.state() for member in learned])
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the blend of the members' estimates."""
        if len(queries) <= _CHUNK:
            return self._estimate(queries)
        chunks = [self._estimate(queries[at : at + _CHUNK]) for at in range(0, len(queries), _CHUNK)]
        names = ("quality_QM", "spread_QM", "cost_usd_QM", "latency_s_QM")
        quality_QM, spread_QM, cost_usd_QM, latency_s_QM = (
            np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names
        )
        return make_estimate(
            chunks[0].candidates,
            quality_QM,
            spread_QM=spread_QM,
            cost_usd_QM=cost_usd_QM,
            latency_s_QM=latency_s_QM,
        )

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Add the candidate to every member; the weights stay. Returns self."""
        weights, pool_M = self._learned("add_candidate")
        # On copies: a member that refuses must leave the others as they were.
        states = [(member, member.state()) for member in self.members_]
        grown = [restored(member, state, None).add_candidate(candidate, table) for member, state in states]
        base = BestSingleRouter()
        base.restore(self.base_.state())
        self.base_ = base.add_candidate(candidate, table)
        self.members_, self.weights_ = tuple(grown), weights
        self.pool_ = np.append(pool_M, False)
        return self

    def state(self) -> State:
        """Return the members, the weights, and the embedder once."""
        weights, pool_M = self._learned("state")
        assert self.embedder_ is not None
        arrays: dict[str, np.ndarray] = {
            "own": weights.own_K,
            "common": weights.common_K,
            "cost": weights.cost_K,
            "pool": pool_M.astype(np.uint8),
        }
        values: dict[str, object] = {}
        parts: dict[str, Configured] = {"base": self.base_}
        if self.embedder_ is not self.embedder:
            parts["embedder"] = self.embedder_
        for number, member in enumerate(self.members_):
            state = member.state()
            arrays |= {f"{number}/{name}": array for name, array in state.arrays.items()}
            values[str(number)] = dict(state.values)
            parts |= {f"{number}/{name}": part for name, part in state.parts.items()}
        return State(arrays=arrays, values=values, parts=parts)

    def restore(self, state: State) -> None:
        """Take over members and weights."""
        embedder, base = state.parts.get("embedder", self.embedder), state.parts["base"]
        if not isinstance(embedder, Embedder) or not isinstance(base, BestSingleRouter):
            raise InputError(sentence("the state of BlendRouter", allowed="an embedder and the means"))
        self.embedder_, self.base_ = embedder, base
        self.weights_ = Weights(*(np.asarray(state.arrays[name]) for name in ("own", "common", "cost")))
        self.pool_ = state.arrays["pool"].astype(np.bool_)
        states = []
        for number in range(len(self._given)):
            prefix, values = f"{number}/", state.values[str(number)]
            assert isinstance(values, dict)
            states.append(
                State(
                    arrays=below(prefix, state.arrays),
                    values=values,
                    parts=below(prefix, state.parts),
                )
            )
        self._take(states)

    @property
    def _given(self) -> tuple[Router, ...]:
        return _default_members() if self.members is None else self.members

    def _take(self, states: Sequence[State]) -> None:
        """Give every member its state, behind one small memory: a request is embedded once for all."""
        assert self.embedder_ is not None
        memory = CachedEmbedder(embedder=self.embedder_, max_entries=_CHUNK)
        given = zip(self._given, states, strict=True)
        self.members_ = tuple(restored(member, state, memory) for member, state in given)

    def _estimate(self, queries: Sequence[Query]) -> Estimate:
        weights, pool_M = self._learned("estimate")
        estimates = [member.estimate(queries) for member in self.members_]
        return blend(estimates, self.base_.estimate(queries), weights, pool_M, self.base_.luck_)

    def _learn(self, table: OutcomeTable, members: Sequence[Router]) -> Weights:
        fold_Q = fold_of(table.queries, self.num_folds, seed=self.seed)
        held = [
            hold_out(members, table.where(fold_Q != fold), table.where(fold_Q == fold)).evidence()
            for fold in np.unique(fold_Q)
            if _is_fair(table, fold_Q == fold)
        ]
        num = len(members)
        return learn_weights(held) if held else Weights(np.zeros(num), np.zeros(num), np.full(num, 1.0 / num))

    def _learned(self, move: str) -> tuple[Weights, Bools]:
        self.require_fitted(move)
        assert self.weights_ is not None
        assert self.pool_ is not None
        return self.weights_, self.pool_


def _default_members() -> tuple[Router, ...]:
    return RidgeRouter(), KNNRouter(), InferredGroupRouter()


def _checked_members(members: tuple[Router, ...]) -> tuple[Router, ...]:
    if not members:
        raise InputError(sentence("BlendRouter.members", allowed="at least one router", got=members))
    for member in members:
        check_kind("BlendRouter.members", member, Router)
    return tuple(members)


def _checked_weights(
    weights: tuple[tuple[float, float, float], ...], num: int
) -> tuple[tuple[float, float, float], ...]:
    if len(weights) != num or any(len(triple) != 3 for triple in weights):
        raise InputError(
            sentence("BlendRouter.weights", allowed=f"own, common and cost for {num} members", got=weights)
        )
    own, common, cost = (
        tuple(check_number("BlendRouter.weights", triple[i], low=0.0, high=LARGEST) for triple in weights)
        for i in range(3)
    )
    if abs(sum(cost) - 1.0) > 1e-9:
        raise InputError(sentence("BlendRouter.weights", allowed="cost shares that sum to 1", got=cost))
    return tuple(zip(own, common, cost, strict=True))


def _weights_of(weights: tuple[tuple[float, float, float], ...]) -> Weights:
    own_K, common_K, cost_K = np.array(weights, np.float64).T
    return Weights(own_K, common_K, cost_K)


def _is_fair(table: OutcomeTable, is_held_Q: Bools) -> bool:
    """Whether both sides of a cut hold a quality."""
    seen_Q: Bools = np.asarray(table.observed_QM.any(axis=1))
    return bool(seen_Q[is_held_Q].any() and seen_Q[~is_held_Q].any())
