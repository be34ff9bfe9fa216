"""This module learns from recorded outcomes how good an answer seems, by logistic regression.

FrugalGPT's g(query, answer) (arXiv 2305.05176, section 3) is a small language model trained to say whether an
answer is right; here it is a regression on the embedded query, the embedded answer, its length, whether it
is empty, who gave it, and the signals that came with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.core.validation import check_kind, check_number
from turnout.sequential.contracts import Scorer
from turnout.sequential.trace import Observed

MAX_KEPT = 4096
STEPS = 30


@final
class LogisticScorer(Scorer):
    """P(answer is right), linear in what is known after the call.

    Parameters
    ----------
    embedder:
        Embeds queries; None does without.
    answers:
        Embeds answers' texts, each as the text of a query; None does without.
    signals:
        Names of signals of the observations; an unknown one counts as the mean of training.
    penalty:
        Ridge penalty on the standardised weights, in observations.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        answers: Embedder | None = None,
        signals: Sequence[str] = (),
        penalty: float = 10.0,
    ) -> None:
        for name, value in (("embedder", embedder), ("answers", answers)):
            if value is not None:
                check_kind(f"LogisticScorer.{name}", value, Embedder)
        self.embedder = embedder
        self.answers = answers
        self.signals = tuple(signals)
        self.penalty = check_number("LogisticScorer.penalty", penalty, low=0.0, allow_low=False)
        self._kept: dict[tuple[str, str | None], Floats] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether weights are known."""
        return hasattr(self, "weights_")

    def fit(self, queries: Sequence[Query], seen: Sequence[Observed], quality: Floats) -> Self:
        """Learn from answers and their qualities, all of shape (N,); failed calls and NaN are left out."""
        kept = [i for i, o in enumerate(seen) if o.error is None and not math.isnan(quality[i])]
        if not kept or len(queries) != len(seen):
            raise InputError(
                sentence("LogisticScorer.fit", allowed="judged answers", got=f"{len(kept)} of them")
            )
        queries, seen = [queries[i] for i in kept], [seen[i] for i in kept]
        self.names_ = tuple(sorted({observed.call.candidate for observed in seen}))
        self.embedder_ = None if self.embedder is None else fitted(self.embedder, queries)
        texts = [_as_query(observed) for observed in seen]
        self.answers_ = None if self.answers is None else fitted(self.answers, texts)
        self._kept = {}
        x_NF = self._features(queries, seen)
        known_NF = np.isfinite(x_NF)
        count_F = np.maximum(known_NF.sum(axis=0), 1)
        self.mean_ = np.where(known_NF, x_NF, 0.0).sum(axis=0) / count_F
        centred_NF = np.where(known_NF, x_NF - self.mean_, 0.0)
        spread_F = np.sqrt((centred_NF**2).sum(axis=0) / count_F)
        self.spread_ = np.where(spread_F > 1e-9, spread_F, 1.0)
        self.weights_ = _regress(centred_NF / self.spread_, quality[kept], self.penalty)
        return self

    def score(self, query: Query, observed: Observed) -> float:
        """Return the probability that the answer is right; 0 for a call that failed."""
        self.require_fitted("score")
        if observed.error is not None:
            return 0.0
        x_F = self._features([query], [observed])[0]
        x_F = np.where(np.isfinite(x_F), (x_F - self.mean_) / self.spread_, 0.0)
        return float(_sigmoid(self.weights_[0] + x_F @ self.weights_[1:]))

    def state(self) -> State:
        """Return weights and embedders."""
        parts = {"embedder": self.embedder_, "answers": self.answers_}
        return State(
            arrays={"weights": self.weights_, "mean": self.mean_, "spread": self.spread_},
            values={"names": list(self.names_)},
            parts={name: part for name, part in parts.items() if part is not None},
        )

    def restore(self, state: State) -> None:
        """Take over what `state` returned."""
        self.weights_, self.mean_, self.spread_ = (state.arrays[n] for n in ("weights", "mean", "spread"))
        self.names_ = tuple(state.values["names"])  # type: ignore[arg-type]
        self.embedder_ = state.parts.get("embedder")  # type: ignore[assignment]
        self.answers_ = state.parts.get("answers")  # type: ignore[assignment]

    def _features(self, queries: Sequence[Query], seen: Sequence[Observed]) -> Floats:
        lengths = [math.log1p(len(observed.answer or "")) for observed in seen]
        is_empty = [float(not (observed.answer or "").strip()) for observed in seen]
        columns = [np.array([lengths, is_empty]).T]
        columns.append(np.array([[float(o.call.candidate == name) for name in self.names_] for o in seen]))
        if self.signals:
            columns.append(np.array([[o.signals.get(n, math.nan) for n in self.signals] for o in seen]))
        if self.embedder_ is not None:
            columns.append(self._embed(self.embedder_, "query", queries))
        if self.answers_ is not None:
            columns.append(self._embed(self.answers_, "answer", [_as_query(observed) for observed in seen]))
        return np.concatenate(columns, axis=1)

    def _embed(self, embedder: Embedder, kind: str, queries: Sequence[Query]) -> Floats:
        if len(queries) > 1:
            return np.asarray(embedder.embed(queries), np.float64)
        # One task asks about the same query at every step.
        key = (kind, queries[0].text)
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = np.asarray(embedder.embed(queries), np.float64)
        return self._kept[key]


def _as_query(observed: Observed) -> Query:
    return Query(id="answer", text=observed.answer)


def _regress(x_NF: Floats, y_N: Floats, penalty: float) -> Floats:
    """Return intercept and weights by Newton's method; targets may lie anywhere in [0, 1]."""
    ones_NF = np.column_stack([np.ones(len(x_NF)), x_NF])
    ridge_F = np.full(ones_NF.shape[1], penalty)
    ridge_F[0] = 1e-6
    weights_F = np.zeros(ones_NF.shape[1])
    for _ in range(STEPS):
        p_N = _sigmoid(ones_NF @ weights_F)
        slope_F = ones_NF.T @ (y_N - p_N) - ridge_F * weights_F
        curvature_FF = (ones_NF * np.maximum(p_N * (1 - p_N), 1e-6)[:, None]).T @ ones_NF + np.diag(ridge_F)
        step_F = np.linalg.solve(curvature_FF, slope_F)
        # A long step from a flat place overshoots.
        weights_F = weights_F + step_F * min(1.0, 4.0 / max(float(np.abs(ones_NF @ step_F).max()), 1e-12))
        if np.abs(step_F).max() < 1e-8:
            break
    return weights_F


def _sigmoid(x: Floats | float) -> Floats:
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, np.float64)))
    return result
