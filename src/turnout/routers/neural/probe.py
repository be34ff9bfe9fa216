"""This module routes by a probe on the hidden states that a model has of a query before it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind
from turnout.routers.adam import sigmoid
from turnout.routers.ground import learn_ground, read_probe
from turnout.routers.means import means_of
from turnout.routers.neighbours import Array
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.newcomer import find_direction
from turnout.routers.neural.scale import fit_scale
from turnout.routers.neural.scored import Scored, scored_from
from turnout.routers.packing import below, under

HIDDEN = 64
"""Width H of the hidden layer."""


@final
class ProbeRouter(Router):
    """Mix the layers of hidden states by learned shares and read the quality of each candidate from the mix.

    An embedder of hidden states hands over those of L layers side by side, F = L * D numbers per query, and
    says so by an attribute `num_layers`; any other vector is one layer, the default embedder's too. The
    shares of the layers come from a Dirichlet distribution: drawn anew for every row in training, so that
    no layer is leaned on too much, and its mean when it answers.

    Source
    ------
    S54: ProbeDirichlet, of "Towards Fair and Comprehensive Evaluation of Routers in Collaborative LLM
    Systems", arXiv 2602.11877 (abstract), and its code, github.com/zhuchichi56/RouterXBench at 5778200, in
    src_easy/dynamic_probe.py.

    Differs
    -------
    One output per candidate, on graded quality, in place of "the small model is right". Layers are scaled to
    the same mean length first, or the last ones, which are the longest, would win. No dropout; Adam with
    decay for fewer steps, stopped by held-out rows of training (the code reports the accuracy on the rows
    that chose its checkpoint, split by an unseeded shuffle). The code's uncertainty is the same for every
    query, and left out. A line per candidate, fitted on held-out rows, corrects the probe (`scale`). A
    newcomer is a ridge regression on the hidden layer.

    Parameters
    ----------
    embedder:
        Turns queries into hidden states, or any vectors; None is `TextEmbedder()`. A fitted one is shared.
    seed:
        Of start, batches and draws.

    Units
    -----
    Spread is the standard error of the line from prediction to quality.

    Cost
    ----
    O(F + D H + H M) per query, with H = 64. Fitting: at most 1,500 steps over batches of 256 rows.

    Raises
    ------
    InputError
        By `fit`, where the length of the vectors is no multiple of the embedder's `num_layers`.
    MissingExtraError
        By `fit`, where torch is not installed.
    """

    def __init__(self, *, embedder: Embedder | None = None, seed: int = 0) -> None:
        if embedder is not None:
            check_kind("ProbeRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.seed = check_count("ProbeRouter.seed", seed, low=0)
        self.net_: dict[str, np.ndarray] = {}
        self.scored_: Scored | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether a probe was learned."""
        return self.scored_ is not None

    @property
    def shares_L(self) -> Array:
        """What each layer counts for, shape (L,), of sum 1."""
        self.require_fitted("shares_L")
        return self.net_["share"]

    def fit(self, table: OutcomeTable) -> Self:
        """Learn the shares of the layers and the probe; returns self."""
        require_torch("ProbeRouter.fit")
        from turnout.routers.neural.probe_net import learn

        ground, lesson = learn_ground(table, self.embedder)
        num_layers = _num_layers(ground.embedder, lesson.x_NF.shape[1])
        means, quality_NM = means_of(lesson.targets), lesson.targets.quality_QM
        x_NLD = lesson.x_NF.reshape(lesson.x_NF.shape[0], num_layers, lesson.x_NF.shape[1] // num_layers)
        unit_L = np.maximum(np.linalg.norm(x_NLD, axis=2).mean(axis=0), 1e-6)
        # As if each number of a layer had a deviation of one.
        unit_L = (unit_L / np.sqrt(x_NLD.shape[2])).astype(np.float32)
        net, held_out = learn(
            x_NLD / unit_L[:, None], quality_NM, means.quality, HIDDEN, make_rng(self.seed, "probe")
        )
        self.net_ = {**net, "unit": unit_L}
        scale = fit_scale(self._says(lesson.x_NF[held_out]), quality_NM[held_out], means)
        self.scored_ = Scored(ground, scale)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return what the probe reads from the hidden states."""
        scored = self._learned("estimate")
        x_QF = scored.ground.embed(queries)
        return scored.estimate(queries, x_QF, self._says(x_QF))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Regress the quality of one more candidate on the hidden layer of its probe rows; returns self."""
        scored = self._learned("add_candidate")
        lesson = read_probe(scored.ground, candidate, table)
        found = find_direction(self._hidden(lesson.x_NF), lesson)
        # Near one half a sigmoid is `1/2 + z/4`.
        weight_H1 = 4.0 * found.weight_D[:, None]
        bias_1 = np.array([4.0 * (found.level - found.centre_D @ found.weight_D - 0.5)])
        for name, added in (("head_weight", weight_H1), ("head_bias", bias_1)):
            self.net_ = {
                **self.net_, name: np.concatenate([self.net_[name], added.astype(np.float32)], axis=-1)
            }  # fmt: skip
        says_N1 = sigmoid(4.0 * (found.left_out_N1 - 0.5))
        line = fit_scale(says_N1, found.quality_N1, means_of(lesson.targets))
        self.scored_ = scored.with_added(candidate, lesson, line)
        return self

    def state(self) -> State:
        """Return the probe and the lines."""
        return self._learned("state").state(self.embedder, under("net.", self.net_))

    def restore(self, state: State) -> None:
        """Take over the probe and the lines."""
        self.scored_ = scored_from(state, self.embedder)
        self.net_ = below("net.", state.arrays)

    def _hidden(self, x_QF: Array) -> Array:
        unit_L, share_L = self.net_["unit"], self.net_["share"]
        x_QLD = x_QF.reshape(x_QF.shape[0], share_L.size, x_QF.shape[1] // share_L.size)
        mixed_QD = np.einsum("qld,l->qd", x_QLD, share_L / unit_L)
        hidden_QH: Array = np.maximum(mixed_QD @ self.net_["weight"] + self.net_["bias"], 0.0)
        return hidden_QH

    def _says(self, x_QF: Array) -> Floats:
        logit_QM = self._hidden(x_QF) @ self.net_["head_weight"] + self.net_["head_bias"]
        return sigmoid(logit_QM.astype(np.float64))

    def _learned(self, move: str) -> Scored:
        self.require_fitted(move)
        assert self.scored_ is not None
        return self.scored_


def _num_layers(embedder: Embedder, num_features: int) -> int:
    num_layers = check_count("ProbeRouter: the embedder's num_layers", getattr(embedder, "num_layers", 1))
    if num_features % num_layers:
        raise InputError(
            sentence(
                f"ProbeRouter: the embedder's num_layers is {num_layers}",
                allowed=f"a divisor of {num_features}, the length of its vectors",
                do="hand over the states of all layers side by side, each of the same width",
            )
        )
    return num_layers
