"""This module tells which task a text belongs to, and offers that as features: one probability per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.features.sparse import Array
from turnout.features.text import TextEmbedder


@final
class TaskEmbedder(Embedder):
    """Learn the queries' own tasks from their texts: multinomial logistic regression on an embedding.

    The tasks are groups that somebody named (a domain, an intent, safe or not), never outcomes. The
    gateway's signals `domain` and `jailbreak` read them, and a router may stand it beside other embedders,
    as vLLM's semantic router does with its categories.

    Source
    ------
    R. Boehning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical
    Mathematics 44(1), 1992: the Hessian of the log likelihood is bounded below by
    `-1/2 (I - 11'/C) (x) X'X`, so each step solves one fixed system and never lowers the likelihood.

    Differs
    -------
    The bound is taken without the projection `11'/C`, which is a little looser; a ridge penalty is added.

    Parameters
    ----------
    embedder:
        What reads the texts; fitted on them unless it is fitted already.
    penalty:
        Ridge penalty per query on the weights, above 0.
    num_steps:
        Steps of the bounded Newton method.

    Shapes
    ------
    Output float32 of shape (Q, C), rows sum to 1, columns in the order of `labels`. Without any task in
    the training queries C is 1 and the column is 0.

    Cost
    ----
    `fit` O(Q F^2 + steps * Q F C); `embed` O(F C) per query beyond the embedder.
    """

    def __init__(
        self, *, embedder: Embedder | None = None, penalty: float = 1e-4, num_steps: int = 100
    ) -> None:
        self.embedder = TextEmbedder() if embedder is None else embedder
        check_kind("TaskEmbedder.embedder", self.embedder, Embedder)
        self.penalty = check_number("TaskEmbedder.penalty", penalty, low=0.0, allow_low=False)
        self.num_steps = check_count("TaskEmbedder.num_steps", num_steps)
        self.embedder_: Embedder | None = None
        self.labels_: tuple[str, ...] | None = None
        self.weight_FC_: Array | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether weights were learned."""
        return self.labels_ is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """The tasks of the columns, in order; empty where the training queries named none."""
        self.require_fitted("labels")
        assert self.labels_ is not None
        return self.labels_

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn to tell the tasks apart; queries without a task only teach the embedder. Returns self."""
        self.embedder_ = fitted(self.embedder, queries)
        known = [query for query in queries if query.task is not None]
        self.labels_ = tuple(sorted({str(query.task) for query in known}))
        x_QF = self._inputs(known)
        self.weight_FC_ = np.zeros((x_QF.shape[1], max(len(self.labels_), 1)), np.float32)
        if len(self.labels_) > 1:
            column = {label: index for index, label in enumerate(self.labels_)}
            target_Q = np.array([column[str(query.task)] for query in known])
            self.weight_FC_ = self._learn(x_QF, target_Q).astype(np.float32)
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the probabilities of the tasks, float32 of shape (Q, C)."""
        self.require_fitted("embed")
        assert self.weight_FC_ is not None
        if not self.labels:
            return np.zeros((len(queries), 1), np.float32)
        share_QC = _softmax(self._inputs(queries) @ self.weight_FC_)
        return share_QC.astype(np.float32)

    def best(self, query: Query) -> tuple[str, float]:
        """Return the likeliest task and its probability; raises `InputError` where there is none."""
        if not self.labels:
            raise InputError(
                sentence("TaskEmbedder.best: it has learned no task", do="fit it on queries with a task")
            )
        share_C = self.embed([query])[0]
        index = int(share_C.argmax())
        return self.labels[index], float(share_C[index])

    def state(self) -> State:
        """Return the labels, the weights and the embedder."""
        self.require_fitted("state")
        assert self.weight_FC_ is not None
        assert self.embedder_ is not None
        return State(
            arrays={"weight": self.weight_FC_},
            values={"labels": list(self.labels)},
            parts={"embedder": self.embedder_},
        )

    def restore(self, state: State) -> None:
        """Take over labels, weights and embedder."""
        labels, embedder = state.values["labels"], state.parts["embedder"]
        assert isinstance(labels, list)
        assert isinstance(embedder, Embedder)
        self.labels_ = tuple(str(label) for label in labels)
        self.weight_FC_ = state.arrays["weight"]
        self.embedder_ = embedder

    def _inputs(self, queries: Sequence[Query]) -> Array:
        """Return the embedding with a column of ones for the bias."""
        assert self.embedder_ is not None
        x_QF = np.asarray(self.embedder_.embed(queries), np.float32)
        return np.column_stack([x_QF, np.ones(len(x_QF), np.float32)])

    def _learn(self, x_QF: Array, target_Q: np.ndarray) -> np.ndarray:
        num_queries, num_features = x_QF.shape
        ridge_F = np.full(num_features, self.penalty)
        ridge_F[-1] = 0.0
        x_QF = x_QF.astype(np.float64)
        bound_FF = x_QF.T @ x_QF / (2 * num_queries) + np.diag(ridge_F + 1e-9)
        inverse_FF = np.linalg.inv(bound_FF)
        goal_QC = np.eye(len(self.labels))[target_Q]
        weight_FC = np.zeros((num_features, goal_QC.shape[1]))
        ahead_FC = weight_FC
        for step in range(self.num_steps):
            gradient_FC = x_QF.T @ (goal_QC - _softmax(x_QF @ ahead_FC)) / num_queries
            gradient_FC -= ridge_F[:, None] * ahead_FC
            last_FC, weight_FC = weight_FC, ahead_FC + inverse_FF @ gradient_FC
            # Nesterov's momentum: the plain steps take ten times as many.
            ahead_FC = weight_FC + step / (step + 3) * (weight_FC - last_FC)
        return weight_FC


def _softmax(score_QC: np.ndarray) -> np.ndarray:
    raised_QC = np.exp(score_QC - score_QC.max(axis=1, keepdims=True))
    share_QC: np.ndarray = raised_QC / raised_QC.sum(axis=1, keepdims=True)
    return share_QC
