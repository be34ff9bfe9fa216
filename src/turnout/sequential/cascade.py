"""This module asks models in order and stops at the first answer that seems good enough.

FrugalGPT (arXiv 2305.05176, section 3): a list L of models and thresholds tau, stop at the first i with
g(query, answer_i) >= tau_i. L and tau maximise quality under a budget; here they maximise quality minus price
times usd, on episodes that the scorer g was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Self, final

import numpy as np

from turnout.core.contracts import State
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.sequential.actions import Call, Choice, Stop
from turnout.sequential.contracts import Environment, Scorer, Sequencer
from turnout.sequential.episodes import SingleCalls, refuse_unknown_charges, single_calls
from turnout.sequential.trace import Observed, Trace

ROUNDS = 5


@final
class Cascade(Sequencer):
    """Calls the models of its order until an answer's score reaches that place's threshold.

    Parameters
    ----------
    scorer:
        Judges answers; fitted, on other queries than the cascade is.
    order:
        Names in the order of asking; None searches all ordered pairs.
    price:
        Quality that one USD must buy, for the search.
    grid:
        Thresholds tried per place: quantiles of the scores, with 0 (always stop) and infinity (never).
    """

    def __init__(
        self, *, scorer: Scorer, order: Sequence[str] | None = None, price: float = 0.0, grid: int = 40
    ) -> None:
        check_kind("Cascade.scorer", scorer, Scorer)
        if order is not None and (isinstance(order, str) or len(set(order)) < len(order) or len(order) < 2):
            raise InputError(sentence("Cascade.order", allowed="two or more names, each once", got=order))
        self.scorer = scorer
        self.order = None if order is None else tuple(order)
        self.price = check_number("Cascade.price", price, low=0.0)
        self.grid = check_count("Cascade.grid", grid, low=2)

    @property
    def is_fitted(self) -> bool:
        """Whether thresholds are known."""
        return hasattr(self, "thresholds_")

    def fit(self, environment: Environment, queries: Sequence[Query]) -> Self:
        """Find order and thresholds on these queries; every candidate in question is asked about each."""
        return self.fit_calls(single_calls(environment, queries, self.order))

    def fit_calls(self, calls: SingleCalls) -> Self:
        """Find order and thresholds on calls that were made before.

        Raises `InputError` at a price for answers whose charge nobody knows.
        """
        if self.price:
            kept = calls.names if self.order is None else self.order
            asked = [calls.names.index(name) for name in kept]
            refuse_unknown_charges("Cascade", (row[column] for row in calls.seen for column in asked))
        score_QM = np.array(
            [[self.scorer.score(q, o) for o in row] for q, row in zip(calls.queries, calls.seen, strict=True)]
        )
        quality_QM = np.where(np.isnan(calls.quality_QM), 0.0, calls.quality_QM)
        best: tuple[float, tuple[int, ...], Floats] | None = None
        orders = [self.order] if self.order is not None else list(permutations(calls.names, 2))
        if not orders:
            raise InputError(sentence("Cascade.fit", allowed="a pool of two or more", got=calls.names))
        for order in orders:
            columns = tuple(calls.names.index(name) for name in order)
            parts = (score_QM[:, columns], quality_QM[:, columns], calls.usd_QM[:, columns])
            value, thresholds = _search(*parts, price=self.price, grid=self.grid)
            if best is None or value > best[0] + 1e-12:
                best = (value, columns, thresholds)
        assert best is not None
        self.order_ = tuple(calls.names[column] for column in best[1])
        self.thresholds_ = best[2]
        return self

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the next call of the order, or the end where the last answer is good enough."""
        self.require_fitted("next")
        last = trace.observed[-1] if trace.observed else None
        values: dict[str, float] = {}
        if last is not None and last.error is None:
            values["score"] = self.scorer.score(trace.query, last)
            if values["score"] >= self._threshold(last):
                return Choice(action=Stop(), reason="good enough", values=values)
        asked = {observed.call.candidate for observed in trace.observed}
        waiting = [name for name in self.order_ if name in trace.admissible and name not in asked]
        if not waiting:
            return Choice(action=Stop(), reason="end of the order", values=values)
        return Choice(action=Call(candidate=waiting[0]), reason="next of the order", values=values)

    def state(self) -> State:
        """Return order and thresholds; a threshold that is never reached is infinity."""
        return State(arrays={"thresholds": self.thresholds_}, values={"order": list(self.order_)})

    def restore(self, state: State) -> None:
        """Take over what `state` returned."""
        self.thresholds_ = state.arrays["thresholds"]
        self.order_ = tuple(state.values["order"])  # type: ignore[arg-type]

    def _threshold(self, last: Observed) -> float:
        place = self.order_.index(last.call.candidate) if last.call.candidate in self.order_ else -1
        return float(self.thresholds_[place]) if 0 <= place < self.thresholds_.size else 0.0


def _search(
    score_QL: Floats, quality_QL: Floats, usd_QL: Floats, *, price: float, grid: int
) -> tuple[float, Floats]:
    """Return (value, thresholds) of one order of L models, L - 1 thresholds.

    Exact on the grid for two models; for more, one place after the other from the back, until nothing moves.
    """
    gain_QL = quality_QL - price * usd_QL.cumsum(axis=1)
    levels = np.linspace(0.0, 1.0, grid)
    thresholds = np.full(score_QL.shape[1] - 1, np.inf)
    best = _value(score_QL, gain_QL, thresholds)
    for _ in range(ROUNDS):
        before = best
        for place in range(thresholds.size - 1, -1, -1):
            tried = np.unique([0.0, *np.quantile(score_QL[:, place], levels), np.inf])
            # What follows this place is settled, so one pass gives the value of every threshold.
            reaches_Q = (score_QL[:, :place] < thresholds[:place]).all(axis=1)
            ahead_Q = _gain(score_QL[:, place + 1 :], gain_QL[:, place + 1 :], thresholds[place + 1 :])
            stops_TQ = score_QL[:, place] >= tried[:, None]
            value_T = np.where(stops_TQ, gain_QL[:, place], ahead_Q)[:, reaches_Q].sum(axis=1)
            thresholds[place] = tried[int(value_T.argmax())]
        best = _value(score_QL, gain_QL, thresholds)
        if best <= before + 1e-12:
            break
    return best, thresholds


def _gain(score_QL: Floats, gain_QL: Floats, thresholds: Floats) -> Floats:
    """Return what each query comes to, shape (Q,)."""
    last = gain_QL.shape[1] - 1
    stops_QL = np.ones(gain_QL.shape, np.bool_)
    stops_QL[:, :last] = score_QL[:, :last] >= thresholds
    gain_Q: Floats = gain_QL[np.arange(len(gain_QL)), stops_QL.argmax(axis=1)]
    return gain_Q


def _value(score_QL: Floats, gain_QL: Floats, thresholds: Floats) -> float:
    return float(_gain(score_QL, gain_QL, thresholds).mean())
