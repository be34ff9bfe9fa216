"""This module chooses among modes, strategies or paths by a gate that is fitted to soft targets and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_number
from turnout.routers.adam import softmax
from turnout.routers.ground import Ground, ground_from, learn_ground, read_probe
from turnout.routers.heads import Heads, heads_from, learn_heads
from turnout.routers.means import column_mean
from turnout.routers.neighbours import Array
from turnout.routers.softmax_regression import Softmax, fit_softmax, softmax_from

_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)
_PENALTY = 1.0
_COIN = 0.25


@final
class ModeGateRouter(Router):
    """Fit a distribution over candidates to `softmax(quality / temperature)`, and read its confidence.

    Candidates are whatever differs in kind: instant, reasoning and agentic modes, strategies of one model,
    text, image or both. `gate` is the distribution with the price of cost in it; `plan` turns its confidence
    into one candidate, two that check each other, or all of them.

    Source
    ------
    S253: TableDART, arXiv 2509.14671, read in notes alone: `KL(softmax(quality / t) || p) + w E_p[cost]` with
    w = 0.15. S244: PRISM, read in notes on its code: one, two or all by confidence 0.35 and gap 0.1. S255 and
    S114 (modes under a cost-regularised reward; reasoning on or off) for the candidates it is meant for.

    Differs
    -------
    A softmax regression on the embedding in place of an MLP over text and image features. The estimate comes
    from a gate without the cost term: `q_m = level(x) + t (log p_m - mean log p)`, the inverse of the target,
    with a ridge head for the level. Costs are scaled by the pool's mean.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    temperature:
        Of the targets, above 0.
    cost_weight:
        Weight of the expected cost in `gate`, in units of the pool's mean cost; at least 0.

    Units
    -----
    Spread is the deviation of what is left over times the root of the leverage of the query.

    Cost
    ----
    O(F M) per query.
    """

    def __init__(
        self, *, embedder: Embedder | None = None, temperature: float = 0.5, cost_weight: float = 0.15
    ) -> None:
        if embedder is not None:
            check_kind("ModeGateRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.temperature = check_number("ModeGateRouter.temperature", temperature, low=0.0, allow_low=False)
        self.cost_weight = check_number("ModeGateRouter.cost_weight", cost_weight, low=0.0)
        self.ground_: Ground | None = None
        self.plain_: Softmax | None = None
        self.priced_: Softmax | None = None
        self.level_ = Heads([], np.zeros(0))
        self.late_ = Heads([], np.zeros(0))
        self.num_rows_ = 1.0
        self.mean_ = 0.5
        self.unit_usd_ = 1.0
        self.noise_M: Floats = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether gates were learned."""
        return self.ground_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Fit both gates and the level; returns self."""
        ground, lesson = learn_ground(table, self.embedder)
        x_NF, quality_NM = lesson.x_NF.astype(np.float64), lesson.targets.quality_QM
        known_NM = np.isfinite(quality_NM)
        grown_NM = np.where(known_NM, np.exp((np.nan_to_num(quality_NM) - 1.0) / self.temperature), 0.0)
        target_NM = grown_NM / np.maximum(grown_NM.sum(axis=1, keepdims=True), 1e-12)
        cost_NM = np.nan_to_num(lesson.targets_usd.cost_usd_QM)
        self.unit_usd_ = float(cost_NM[known_NM].mean()) or 1.0
        self.plain_ = fit_softmax(x_NF, target_NM, penalty=_PENALTY, known_NK=known_NM)
        self.priced_ = fit_softmax(
            x_NF, target_NM, penalty=_PENALTY, known_NK=known_NM,
            cost_NK=self.cost_weight * cost_NM / self.unit_usd_,
        )  # fmt: skip
        self.late_, self.num_rows_ = Heads([], np.zeros(0)), float(len(x_NF))
        mean_M = column_mean(quality_NM)
        self.mean_ = float(mean_M.mean())
        level_N1 = column_mean((quality_NM - mean_M).T)[:, None]
        self.level_ = Heads(learn_heads(x_NF, level_N1, np.zeros(1), _PENALTIES), np.zeros(1))
        over_NM = quality_NM - self._quality(lesson.x_NF)[0]
        self.noise_M = _noise(over_NM)
        self.ground_ = ground
        return self

    def gate(self, queries: Sequence[Query]) -> Floats:
        """Return the distribution over the candidates with cost in it, shape (Q, M); 0 for the stranger."""
        ground, _, priced = self._learned("gate")
        x_QF = ground.embed(queries)
        log_QM = priced.log_shares(x_QF.astype(np.float64))
        num = log_QM.shape[1]
        if len(self.noise_M) > num:
            # A newcomer stands where its quality and cost put it beside the mean of those that were fitted.
            quality_QM, _ = self._quality(x_QF)
            seen = np.flatnonzero(ground.place >= 0)
            column = seen[np.argsort(ground.place[seen])]
            cost_QM = np.nan_to_num(ground.charges.lines(queries) * ground.charges.ratio)[:, column]
            worth_QM = quality_QM - self.cost_weight / self.unit_usd_ * cost_QM
            ahead_QM = worth_QM[:, num:] - worth_QM[:, :num].mean(axis=1, keepdims=True)
            late_QM = log_QM.mean(axis=1, keepdims=True) + ahead_QM / self.temperature
            log_QM = np.concatenate([log_QM, late_QM], axis=1)
        return ground.spread_out(softmax(log_QM), 0.0)

    def plan(
        self, queries: Sequence[Query], *, confidence: float = 0.35, gap: float = 0.1
    ) -> list[tuple[int, ...]]:
        """Return whom to call for each query: columns of the pool, the best first.

        One if the best share is at least `confidence` and leads by `gap`; two if it leads by less; all
        learned candidates if nobody is sure.
        """
        sure = check_number("ModeGateRouter.plan: confidence", confidence, low=0.0, high=1.0)
        lead = check_number("ModeGateRouter.plan: gap", gap, low=0.0, high=1.0)
        plans = []
        for share_M in self.gate(queries):
            order = np.argsort(-share_M, kind="stable")
            order = order[share_M[order] > 0.0]
            best = float(share_M[order[0]])
            ahead = best - (float(share_M[order[1]]) if order.size > 1 else 0.0)
            num = order.size if best < sure else 1 if ahead >= lead else 2
            plans.append(tuple(order[:num].tolist()))
        return plans

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the qualities of which the gate without cost is the softmax."""
        ground, _, _ = self._learned("estimate")
        x_QF = ground.embed(queries)
        quality_QM, leverage_Q1 = self._quality(x_QF)
        return ground.estimate(queries, quality_QM, np.sqrt(self.noise_M * leverage_Q1), x_QF=x_QF)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Fit how far a newcomer is from the level of the others on its probe rows; returns self."""
        ground, _, _ = self._learned("add_candidate")
        lesson = read_probe(ground, candidate, table)
        over_NM = lesson.targets.quality_QM - self._level(lesson.x_NF)[0]
        heads = learn_heads(lesson.x_NF.astype(np.float64), over_NM, np.zeros(1), _PENALTIES)
        self.late_ = self.late_.with_added(Heads(heads, np.zeros(1)))
        left_NM = over_NM - self.late_.predict(lesson.x_NF)[0][:, -1:]
        self.noise_M = np.append(self.noise_M, _noise(left_NM) * self.num_rows_ / len(left_NM))
        self.ground_ = ground.with_added(candidate, lesson)
        return self

    def state(self) -> State:
        """Return the gates, the level and the newcomers."""
        ground, plain, priced = self._learned("state")
        parts = {
            "plain": plain.arrays(),
            "priced": priced.arrays(),
            "level": self.level_.arrays(),
            "late": self.late_.arrays(),
        }
        arrays = {f"{part}:{name}": a for part, arrays in parts.items() for name, a in arrays.items()}
        numbers = np.array([self.mean_, self.unit_usd_, self.num_rows_])
        return ground.state(self.embedder, {**arrays, "numbers": numbers, "noise": self.noise_M})

    def restore(self, state: State) -> None:
        """Take over the gates, the level and the newcomers."""
        self.ground_ = ground_from(state, self.embedder)

        def part(name: str) -> dict[str, np.ndarray]:
            return {n.partition(":")[2]: a for n, a in state.arrays.items() if n.startswith(f"{name}:")}

        self.plain_, self.priced_ = softmax_from(part("plain")), softmax_from(part("priced"))
        self.level_, self.late_ = heads_from(part("level")), heads_from(part("late"))
        self.mean_, self.unit_usd_, self.num_rows_ = state.arrays["numbers"].tolist()
        self.noise_M = state.arrays["noise"]

    def _level(self, x_QF: Array) -> tuple[Floats, Floats]:
        """Return the mean quality of the pool around each query, and the leverage, both (Q, 1)."""
        away_Q1, error_Q1 = self.level_.predict(x_QF)
        noise = max(float(self.level_.groups[0].noise_H[0]), 1e-12)
        leverage_Q1: Floats = np.maximum(error_Q1**2 / noise, 1.0 / self.num_rows_)
        return self.mean_ + away_Q1, leverage_Q1

    def _quality(self, x_QF: Array) -> tuple[Floats, Floats]:
        """Return the quality of the learned candidates, (Q, M), and the leverage, (Q, 1)."""
        assert self.plain_ is not None
        level_Q1, leverage_Q1 = self._level(x_QF)
        log_QM = self.plain_.log_shares(x_QF.astype(np.float64))
        quality_QM = level_Q1 + self.temperature * (log_QM - log_QM.mean(axis=1, keepdims=True))
        if self.late_.unit_C.size:
            quality_QM = np.concatenate([quality_QM, level_Q1 + self.late_.predict(x_QF)[0]], axis=1)
        return quality_QM, leverage_Q1

    def _learned(self, move: str) -> tuple[Ground, Softmax, Softmax]:
        self.require_fitted(move)
        assert self.ground_ is not None
        assert self.plain_ is not None
        assert self.priced_ is not None
        return self.ground_, self.plain_, self.priced_


def _noise(left_NM: Floats) -> Floats:
    """Return the mean square of what is left over, one more outcome being a fair coin's, shape (M,)."""
    num_M = np.isfinite(left_NM).sum(axis=0)
    noise_M: Floats = (np.nan_to_num(column_mean(left_NM**2)) * num_M + _COIN) / (num_M + 1.0)
    return noise_M
