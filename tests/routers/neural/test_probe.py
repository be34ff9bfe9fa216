"""ProbeDirichlet: the layer that knows is found, what no line can see is seen, and answers need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import pytest
import torch

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.contracts import Embedder
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, ProbeRouter, RidgeRouter
from turnout.routers.neural.probe_net import ProbeNet

LAYERS, WIDTH, KNOWING = 5, 6, 2


class HiddenStates(Embedder):
    """Stands for a model whose hidden states of a query are known: the text is their seed.

    In the layer `KNOWING`, the product of the signs of the first two numbers says whether the query is easy;
    the others are noise, and longer.
    """

    def __init__(self, *, num_layers: int = LAYERS) -> None:
        self.num_layers = num_layers

    def fit(self, queries: Sequence[Query]) -> Self:
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        states = [np.random.default_rng(int(q.words)).normal(size=(LAYERS, WIDTH)) for q in queries]
        x_QLD = np.reshape(states, (-1, LAYERS, WIDTH)) * np.linspace(1.0, 3.0, LAYERS)[:, None]
        return x_QLD.reshape(len(queries), LAYERS * WIDTH).astype(np.float32)


def hidden_table(num: int, *, start: int = 0) -> OutcomeTable:
    """Return outcomes of a model that is right on easy queries and one that is right on three of four."""
    texts = [str(start + i) for i in range(num)]
    x_QLD = HiddenStates().embed([Query(id=t, text=t) for t in texts]).reshape(num, LAYERS, WIDTH)
    is_easy_Q = x_QLD[:, KNOWING, 0] * x_QLD[:, KNOWING, 1] > 0
    rng = np.random.default_rng(start)
    return dense_table(np.stack([is_easy_Q, rng.random(num) < 0.75], axis=1).astype(np.float64), texts)


def test_the_layer_that_knows_is_found_and_what_no_line_sees_is_seen() -> None:
    table, fresh = hidden_table(2_000), hidden_table(500, start=10_000)
    router = ProbeRouter(embedder=HiddenStates()).fit(table)
    assert router.shares_L.sum() == pytest.approx(1.0)
    assert router.shares_L.argmax() == KNOWING
    assert router.shares_L[KNOWING] > 0.5

    def error(other: ProbeRouter | KNNRouter | RidgeRouter) -> float:
        away_Q = other.estimate(fresh.queries).quality_QM[:, 0] - fresh.quality_QM[:, 0]
        return float(np.square(away_Q).mean())

    # Who knows nothing has the error 1/4.
    assert error(router) < 0.12
    assert error(RidgeRouter(embedder=HiddenStates()).fit(table)) > 0.22
    assert error(KNNRouter(embedder=HiddenStates()).fit(table)) > 0.22


def test_shares_are_drawn_from_the_dirichlet_in_training_and_are_its_mean_otherwise() -> None:
    net = ProbeNet(3, 4, 8, np.array([0.5]), np.random.default_rng(0))
    with torch.no_grad():
        net.logits.copy_(torch.tensor([0.0, 1.0, 2.0]))
        net.beta.fill_(np.log(6.0))
        before = torch.random.get_rng_state()
        drawn_NL = net.shares(20_000).numpy()
        assert torch.equal(torch.random.get_rng_state(), before)
        mean_L = net.eval().shares(7).numpy()[0]
    np.testing.assert_allclose(mean_L, np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum(), rtol=1e-6)
    np.testing.assert_allclose(drawn_NL.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(drawn_NL.mean(axis=0), mean_L, atol=0.01)
    # The variance of a Dirichlet distribution of concentration 6.
    np.testing.assert_allclose(drawn_NL.var(axis=0), mean_L * (1.0 - mean_L) / 7.0, rtol=0.05)
    net.train()
    net.shares(50).square().sum().backward()
    assert net.beta.grad is not None
    assert float(net.beta.grad) != 0.0


def test_the_answer_in_numpy_is_that_of_the_network() -> None:
    rng = np.random.default_rng(0)
    net = ProbeNet(3, 4, 8, np.array([0.3, 0.6]), rng).eval()
    with torch.no_grad():
        net.logits.copy_(torch.tensor([0.5, -1.0, 0.0]))
    x_QLD = rng.normal(size=(9, 3, 4)).astype(np.float32)
    router = ProbeRouter(embedder=HiddenStates())
    names = ("weight", "bias", "head_weight", "head_bias")
    router.net_ = {name: net.state_dict()[name].numpy() for name in names}
    router.net_ |= {"share": net.shares(1).detach().numpy()[0], "unit": np.array([1.0, 2.0, 3.0], np.float32)}
    with torch.no_grad():
        units = torch.tensor([1.0, 2.0, 3.0])[:, None]
        expected = torch.sigmoid(net(torch.tensor(x_QLD) / units)).numpy()
    np.testing.assert_allclose(router._says(x_QLD.reshape(9, 12)), expected, rtol=1e-5)


def test_graded_quality_is_learned_and_missing_cells_are_not() -> None:
    rng = np.random.default_rng(0)
    embedder = TextEmbedder(num_features=16).fit(worded_queries(240))
    quality_QM = np.tile([[0.9, 0.3], [0.5, 0.3], [0.1, 0.3]], (80, 1))
    quality_QM[rng.random((240, 2)) < 0.3] = np.nan
    estimate = (
        ProbeRouter(embedder=embedder).fit(worded_table(quality_QM)).estimate(worded_queries(30, seed=9))
    )
    np.testing.assert_allclose(
        estimate.quality_QM, np.tile([[0.9, 0.3], [0.5, 0.3], [0.1, 0.3]], (10, 1)), atol=0.12
    )


def test_a_newcomer_is_read_from_the_hidden_layer_that_was_learned() -> None:
    table = hidden_table(2_000)
    router = ProbeRouter(embedder=HiddenStates()).fit(table)
    twin = Candidate(model="twin")
    probe = OutcomeTable(
        queries=table.queries[:200],
        candidates=[twin],
        query_index=np.arange(200),
        candidate_index=np.zeros(200, np.int64),
        quality=table.quality_QM[:200, 0],
    )
    fresh = hidden_table(500, start=10_000)
    found_Q = router.add_candidate(twin, probe).estimate(fresh.queries).quality_QM[:, -1]
    # In the raw states nothing linear would see it.
    assert np.square(found_Q - fresh.quality_QM[:, 0]).mean() < 0.15


def test_a_wrong_number_of_layers_is_said() -> None:
    with pytest.raises(InputError, match="a divisor of 30"):
        ProbeRouter(embedder=HiddenStates(num_layers=4)).fit(hidden_table(20))


def test_seeds_count() -> None:
    table = real_table()
    embedder = TextEmbedder(num_features=16).fit(table.queries)
    first, second = (ProbeRouter(embedder=embedder, seed=seed).fit(table) for seed in (0, 1))
    queries = [replace(query, task=None) for query in table.queries[:9]]
    assert (first.estimate(queries).quality_QM != second.estimate(queries).quality_QM).any()
