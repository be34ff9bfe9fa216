"""This module routes by what each candidate's answer is foreseen to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.adam import sigmoid
from turnout.routers.ground import learn_ground, read_probe
from turnout.routers.means import means_of
from turnout.routers.neighbours import Array
from turnout.routers.neural.answers import read_answers
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.newcomer import usual_parameters
from turnout.routers.neural.scale import fit_scale
from turnout.routers.neural.scored import Scored, scored_from, unit_of
from turnout.routers.packing import below, under

SIZES = (64, 32)
"""Widths H of the query's layer and K of a latent."""


@final
class LookaheadRouter(Router):
    """Foresee a latent of every candidate's answer to a query, and read the quality from the latent.

    In training the latent must also give back the vector of the answer that was recorded, so that a router
    learns from what was said, and not only from how it was graded. Answers are read from the table's extra
    column `response` (`load(name, responses=True)`); of a table without it, quality alone is learned.

    Source
    ------
    S136: "Lookahead Routing for Large Language Models", arXiv 2510.19506 (abstract), and its code,
    github.com/huangcb01/lookahead-routing at bfce756 (`src/model/mask.py`, `src/trainers/mask.py`).

    Differs
    -------
    The latent is K numbers from a small network on the embedder's vector and the candidate's own gains, in
    place of the hidden states of ModernBERT at 64 masked slots behind a token of the model; it gives back
    the answer's vector (squared error), in place of its tokens (cross entropy). The code scales the scores
    of a query to [0, 1] and calls those above 0.8 right, so that where all are equal all are wrong; here
    graded quality is learned as it is. It drops a query if one answer is missing; here each cell counts for
    itself. A line per candidate, fitted on held-out rows, corrects the network (`scale`). A newcomer's own
    parameters descend on its probe rows while all others stay.

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`. A fitted one is shared as it is.
    answers:
        Turns answers into vectors, in training only; None is a `TextEmbedder` of 32 features.
    answer_weight:
        Weight of the error of answers, a share of their variance, against the log loss of quality (0.2 for
        masked and 0.5 for causal models in the code); 0 learns quality alone.
    seed:
        Of start and batches.

    Units
    -----
    Spread is the standard error of the line from prediction to quality.

    Cost
    ----
    O(F H + M H K) per query, with H = 64 and K = 32. Fitting: at most 1,500 steps over batches of 256 rows;
    at most 20,000 answers are read, 1,000 characters of each.

    Raises
    ------
    MissingExtraError
        By `fit` and `add_candidate`, where torch is not installed.
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        answers: Embedder | None = None,
        answer_weight: float = 0.2,
        seed: int = 0,
    ) -> None:
        for name, given in (("embedder", embedder), ("answers", answers)):
            if given is not None:
                check_kind(f"LookaheadRouter.{name}", given, Embedder)
        self.embedder = embedder
        self.answers = answers
        self.answer_weight = check_number("LookaheadRouter.answer_weight", answer_weight, low=0.0, high=1e3)
        self.seed = check_count("LookaheadRouter.seed", seed, low=0)
        self.net_: dict[str, np.ndarray] = {}
        self.scored_: Scored | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether a network was learned."""
        return self.scored_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn latents that give back answers and quality; returns self."""
        require_torch("LookaheadRouter.fit")
        from turnout.routers.neural.lookahead_net import learn, start

        ground, lesson = learn_ground(table, self.embedder)
        means, quality_NM = means_of(lesson.targets), lesson.targets.quality_QM
        answer_NMR = None
        if self.answer_weight:
            answer_NMR = read_answers(table, lesson.queries, lesson.names, self.answers)
        num_answer = 1 if answer_NMR is None else answer_NMR.shape[2]
        rng = make_rng(self.seed, "lookahead")
        unit = unit_of(lesson.x_NF)
        net = start(lesson.x_NF.shape[1], means.quality, (*SIZES, num_answer), rng)
        net, held_out = learn(net, lesson.x_NF / unit, quality_NM, answer_NMR, self.answer_weight, rng)
        self.net_ = {**net, "unit": np.array([unit], np.float32)}
        scale = fit_scale(self._says(lesson.x_NF[held_out]), quality_NM[held_out], means)
        self.scored_ = Scored(ground, scale)
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the quality of the answers that are foreseen."""
        scored = self._learned("estimate")
        x_QF = scored.ground.embed(queries)
        return scored.estimate(queries, x_QF, self._says(x_QF))

    def foresee(self, queries: Sequence[Query]) -> Array:
        """Return the vectors of the answers that are foreseen, (Q, M, R).

        They are centred and scaled like those of training, see `read_answers`; candidates stand in the
        order of their names, newcomers behind them, without those never observed.
        """
        ground = self._learned("foresee").ground
        latent_QMK = np.stack(list(self._latents(ground.embed(queries), self.net_)), axis=1)
        answer_QMR: Array = latent_QMK @ self.net_["decode"] + self.net_["decode_bias"]
        return answer_QMR

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Learn one more candidate's own parameters from its probe rows; returns self."""
        require_torch("LookaheadRouter.add_candidate")
        from turnout.routers.neural.lookahead_net import OWN, learn

        scored = self._learned("add_candidate")
        lesson = read_probe(scored.ground, candidate, table)
        means, quality_N1 = means_of(lesson.targets), lesson.targets.quality_QM
        usual = usual_parameters(self.net_, OWN, means.quality)
        rng = make_rng(self.seed, "lookahead", candidate.name)
        net = {name: array for name, array in self.net_.items() if name != "unit"} | usual
        learned, _ = learn(net, lesson.x_NF / self.net_["unit"], quality_N1, None, 0.0, rng, names=OWN)
        own = {name: learned[name] for name in OWN}
        says_N1 = self._says(lesson.x_NF, own)
        line = scored.scale.newcomer(says_N1, quality_N1, means)
        self.net_ = self.net_ | {n: np.concatenate([self.net_[n], own[n]]) for n in OWN}
        self.scored_ = scored.with_added(candidate, lesson, line)
        return self

    def state(self) -> State:
        """Return the network and the lines."""
        return self._learned("state").state(self.embedder, under("net.", self.net_))

    def restore(self, state: State) -> None:
        """Take over the network and the lines."""
        self.scored_ = scored_from(state, self.embedder)
        self.net_ = below("net.", state.arrays)

    def _latents(self, x_QF: Array, own: dict[str, np.ndarray]) -> Iterator[Array]:
        """Yield the latents of each candidate, (Q, K): one by one, so that a newcomer changes no rounding."""
        net = self.net_
        hidden_QH = np.maximum(x_QF / net["unit"] @ net["weight"] + net["bias"], 0.0)
        for gain_H, offset_K in zip(own["gain"], own["offset"], strict=True):
            yield np.maximum((hidden_QH * gain_H) @ net["mix"] + offset_K, 0.0)

    def _says(self, x_QF: Array, own: dict[str, np.ndarray] | None = None) -> Floats:
        own = own or self.net_
        says_QM = np.zeros((x_QF.shape[0], own["level"].size))
        for column, latent_QK in enumerate(self._latents(x_QF, own)):
            says_QM[:, column] = latent_QK @ own["head"][column] + own["level"][column]
        return sigmoid(says_QM)

    def _learned(self, move: str) -> Scored:
        self.require_fitted(move)
        assert self.scored_ is not None
        return self.scored_
