"""This module routes queries that bring retrieved documents: what a candidate knows, and what it can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.adam import sigmoid
from turnout.routers.ground import Ground, learn_ground, read_probe
from turnout.routers.means import means_of
from turnout.routers.neighbours import Array
from turnout.routers.neural.extra import require_torch
from turnout.routers.neural.newcomer import usual_parameters
from turnout.routers.neural.scale import fit_scale
from turnout.routers.neural.scored import Scored, scored_from, unit_of
from turnout.routers.packing import below, under
from turnout.routers.reader import fitted_embedder
from turnout.routers.targets import read_targets

TAG = "document"
"""The tag of a query that holds the text of its retrieved documents."""
WIDTH, NUM_HEADS = 32, 4
_MAX_ROWS_PER_TEXT = 8


@final
class RAGRouter(Router):
    """Compare a query with what each candidate knows, shifted by what it makes of the query's documents.

    The documents of a query stand in its tag `document`. Without them the score is `v_q . v_k`, what is
    asked against what is known; with them `v_q . (v_k + v_f)`, where v_f comes by attention from the
    candidate's way with documents, the document, and its overlap with the query. A text that was asked with
    and without documents teaches what they change.

    Source
    ------
    S86: J. Zhang et al., "RAGRouter: Learning to Route Queries to Multiple Retrieval-Augmented Language
    Models", arXiv 2505.23052v2, sections 4.1 and 4.2; its formulas are read from the words around them.

    Differs
    -------
    One learned linear map on a frozen embedder reads query and document, in place of a sentence encoder that
    is trained; a layer on the product of the two vectors stands in for the cross-encoder. Similarity is the
    inner product, with a constant per candidate. Quality is graded in both losses. A line per candidate,
    fitted on held-out rows, corrects the network (`scale`). A newcomer's own parameters descend on its probe
    rows while all others stay. Its threshold on scores is a policy here (`Cheapest`).

    Parameters
    ----------
    embedder:
        Turns text into vectors; None is `TextEmbedder()`, fitted on queries and documents. A fitted one is
        shared as it is.
    log_weight:
        Weight of the log loss beside the contrast, above 0.
    seed:
        Of start and batches.

    Units
    -----
    Spread is the standard error of the line from prediction to quality.

    Cost
    ----
    O(F D + M D) per query, twice the vectors where it brings documents, with D = 32. Fitting: at most 1,500
    steps over batches of 256 texts.

    Raises
    ------
    MissingExtraError
        By `fit` and `add_candidate`, where torch is not installed.
    """

    def __init__(self, *, embedder: Embedder | None = None, log_weight: float = 1.0, seed: int = 0) -> None:
        if embedder is not None:
            check_kind("RAGRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.log_weight = check_number("RAGRouter.log_weight", log_weight, low=0.0, high=1e3, allow_low=False)
        self.seed = check_count("RAGRouter.seed", seed, low=0)
        self.scored_: Scored | None = None
        self.net_: dict[str, np.ndarray] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether a network was learned."""
        return self.scored_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Learn what candidates know and what documents change; returns self."""
        require_torch("RAGRouter.fit")
        from turnout.routers.neural.rag_net import learn, start

        # The words of documents must be known, too.
        queries, _ = read_targets(table)
        read = fitted_embedder(self.embedder, [*queries, *_documents(queries)])
        ground, lesson = learn_ground(table, read)
        means, quality_NM = means_of(lesson.targets), lesson.targets.quality_QM
        rng = make_rng(self.seed, "rag")
        unit = unit_of(lesson.x_NF)
        document_NF = _embed_documents(ground, lesson.queries)
        net = start(lesson.x_NF.shape[1], means.quality, WIDTH, rng)
        texts_TS = _rows_of_texts(lesson.queries)
        inputs = (lesson.x_NF / unit, document_NF / unit)
        net, held_out = learn(net, inputs, quality_NM, texts_TS, self.log_weight, rng, num_heads=NUM_HEADS)
        self.net_ = {**net, "unit": np.array([unit], np.float32)}
        rows = np.unique(texts_TS[held_out])
        rows = rows[rows >= 0]
        says = self._says(lesson.x_NF[rows], document_NF[rows])
        self.scored_ = Scored(ground, fit_scale(says, quality_NM[rows], means))
        return self

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the quality of everybody with the documents that each query brings."""
        scored = self._learned("estimate")
        x_QF = scored.ground.embed(queries)
        return scored.estimate(queries, x_QF, self._says(x_QF, _embed_documents(scored.ground, queries)))

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Learn one more candidate's own parameters from its probe rows; returns self."""
        require_torch("RAGRouter.add_candidate")
        from turnout.routers.neural.rag_net import OWN, learn

        scored = self._learned("add_candidate")
        lesson = read_probe(scored.ground, candidate, table)
        means, quality_N1 = means_of(lesson.targets), lesson.targets.quality_QM
        usual = usual_parameters(self.net_, OWN, means.quality)
        document_NF = _embed_documents(scored.ground, lesson.queries)
        inputs = (lesson.x_NF / self.net_["unit"], document_NF / self.net_["unit"])
        rng = make_rng(self.seed, "rag", candidate.name)
        net, texts_TS = self.net_ | usual, _rows_of_texts(lesson.queries)
        learned, _ = learn(
            net, inputs, quality_N1, texts_TS, self.log_weight, rng, num_heads=NUM_HEADS, names=OWN
        )
        own = {name: learned[name] for name in OWN}
        line = scored.scale.newcomer(self._says(lesson.x_NF, document_NF, own), quality_N1, means)
        self.net_ = self.net_ | {name: np.concatenate([self.net_[name], own[name]]) for name in OWN}
        self.scored_ = scored.with_added(candidate, lesson, line)
        return self

    def state(self) -> State:
        """Return the network and the lines."""
        return self._learned("state").state(self.embedder, under("net.", self.net_))

    def restore(self, state: State) -> None:
        """Take over the network and the lines."""
        self.scored_ = scored_from(state, self.embedder)
        self.net_ = below("net.", state.arrays)

    def _says(self, x_QF: Array, document_QF: Array, own: dict[str, np.ndarray] | None = None) -> Floats:
        """Return the probabilities of the network, shape (Q, M).

        Sums are written out, and not left to a matrix product, so that a newcomer changes no rounding.
        """
        net = self.net_ if own is None else self.net_ | own
        z_QD, root = x_QF / net["unit"] @ net["read"], np.float32(np.sqrt(net["knows"].shape[1]))
        score_QM = np.einsum("qd,md->qm", z_QD, net["knows"])
        rows = np.flatnonzero(document_QF.any(axis=1))
        if rows.size:
            d_QD = document_QF[rows] / net["unit"] @ net["read"]
            score_QM[rows] += _shift(net, z_QD[rows], d_QD)
        return sigmoid((score_QM / root + net["level"]).astype(np.float64))

    def _learned(self, move: str) -> Scored:
        self.require_fitted(move)
        assert self.scored_ is not None
        return self.scored_


def _shift(net: dict[str, np.ndarray], z_QD: Array, d_QD: Array) -> Array:
    """Return `v_q . v_f`, shape (Q, M), without forming v_f for every pair.

    Letters: H heads of width E. The attention has three tokens: v_r of the candidate, v_d and v_c.
    """

    def heads(x_ND: Array) -> Array:
        return x_ND.reshape(x_ND.shape[0], NUM_HEADS, -1)

    c_QD = np.maximum((z_QD * d_QD) @ net["cross"], 0.0)
    ask_MHE = heads(net["uses"] @ net["ask"]) / np.float32(np.sqrt(z_QD.shape[1] // NUM_HEADS))
    wanted_QHE = heads(z_QD @ net["out"].T)
    r_MHE, rv_MHE = heads(net["uses"] @ net["key"]), heads(net["uses"] @ net["value"])
    seen = [(heads(t_QD @ net["key"]), heads(t_QD @ net["value"])) for t_QD in (d_QD, c_QD)]
    score_3QMH = np.stack(
        [
            np.broadcast_to((ask_MHE * r_MHE).sum(axis=2), (len(z_QD), *ask_MHE.shape[:2])),
            *(np.einsum("mhe,qhe->qmh", ask_MHE, key_QHE) for key_QHE, _ in seen),
        ]
    )
    share_3QMH = np.exp(score_3QMH - score_3QMH.max(axis=0))
    share_3QMH /= share_3QMH.sum(axis=0)
    gain_QMH = share_3QMH[0] * np.einsum("mhe,qhe->qmh", rv_MHE, wanted_QHE)
    for share_QMH, (_, value_QHE) in zip(share_3QMH[1:], seen, strict=True):
        gain_QMH = gain_QMH + share_QMH * (value_QHE * wanted_QHE).sum(axis=2)[:, None, :]
    shift_QM: Array = gain_QMH.sum(axis=2)
    return shift_QM


def _documents(queries: Sequence[Query]) -> list[Query]:
    """Return the documents of the queries that bring some, as texts to read."""
    return [Query(id=query.id, text=query.tags[TAG]) for query in queries if query.tags.get(TAG)]


def _embed_documents(ground: Ground, queries: Sequence[Query]) -> Array:
    """Return the vectors of the documents, shape (Q, F), zeros for a query without any."""
    rows = [row for row, query in enumerate(queries) if query.tags.get(TAG)]
    found = ground.embed(_documents(queries))
    document_QF = np.zeros((len(queries), found.shape[1]), np.float32)
    document_QF[rows] = found
    return document_QF


def _rows_of_texts(queries: Sequence[Query]) -> Ints:
    """Return the rows of each text in order, shape (T, S), -1 for no more; at most 8 of one text."""
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        rows.setdefault(query.words or f"\0{row}", []).append(row)
    width = min(max((len(found) for found in rows.values()), default=1), _MAX_ROWS_PER_TEXT)
    parts = [part for found in rows.values() for part in _cut(found, width)]
    return np.array([part + [-1] * (width - len(part)) for part in parts], np.int64)


def _cut(rows: list[int], width: int) -> list[list[int]]:
    return [rows[low : low + width] for low in range(0, len(rows), width)]
