"""GraphRouter: messages against loops, masks that hide, tasks as nodes, newcomers judged by their likes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.routers.tables import real_table, shuffled, worded_queries
from turnout.core import Candidate, OutcomeTable
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import GraphRouter, KNNRouter, RidgeRouter
from turnout.routers.neural.graph_net import Edges, GraphNet

EMBEDDER = TextEmbedder(num_features=16).fit(worded_queries(240))


def small_graph(num: int = 12) -> tuple[GraphNet, Edges]:
    rng = np.random.default_rng(0)
    net = GraphNet(rng.normal(size=(2, 5)).astype(np.float32), rng)
    quality_BM = rng.random((num, 4))
    quality_BM[rng.random((num, 4)) < 0.4] = np.nan
    quality_BM[:, 3] = np.nan
    edges = Edges(
        torch.tensor(rng.normal(size=(num, 5)), dtype=torch.float32),
        torch.tensor(rng.integers(-1, 2, num)),
        torch.tensor(quality_BM, dtype=torch.float32),
        torch.tensor(np.where(rng.random((num, 4)) < 0.5, np.nan, 1.0), dtype=torch.float32),
    )
    return net, edges


def looped(net: GraphNet, edges: Edges) -> np.ndarray:
    """Return the states of the candidates, edge by edge."""
    w = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
    quality_BM, cost_BM = edges.quality_BM.double().numpy(), edges.cost_BM.double().numpy()
    states = []
    for m in range(quality_BM.shape[1]):
        state = w["start"][0]
        for at in range(2):
            messages = []
            for q in np.flatnonzero(np.isfinite(quality_BM[:, m])):
                sender = edges.x_BF[q].double().numpy() @ w["text"]
                if (task := int(edges.task_B[q])) >= 0:
                    sender = sender + w["task_TF"][task] @ w["topic"] + w["own"][task]
                edge = np.array([quality_BM[q, m] - 0.5, np.nan_to_num(cost_BM[q, m])])
                sent = np.append(sender, 1.0) @ w[f"sender.{at}"] + edge @ w[f"edge.{at}"]
                messages.append(np.maximum(sent + state @ w[f"receiver.{at}"], 0.0))
            state = state @ w[f"keep.{at}"] + (np.mean(messages, axis=0) if messages else 0.0)
            state = np.maximum(state, 0.0) if at == 0 else state
        states.append(state)
    return np.stack(states)


def test_states_are_those_of_loops_over_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    net, edges = small_graph()
    np.testing.assert_allclose(net.models(edges).detach().numpy(), looped(net, edges), rtol=1e-4, atol=1e-5)
    whole = net.models(edges).detach().numpy()
    # In blocks of two queries.
    monkeypatch.setattr("turnout.routers.neural.graph_net._CHUNK", 256)
    np.testing.assert_allclose(net.models(edges).detach().numpy(), whole, rtol=1e-5, atol=1e-6)


def test_a_masked_edge_reaches_no_prediction() -> None:
    net, edges = small_graph()
    is_seen = torch.rand(edges.quality_BM.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    visible = edges.seen(is_seen)
    changed = Edges(
        edges.x_BF,
        edges.task_B,
        torch.where(is_seen, edges.quality_BM, 1.0 - edges.quality_BM),
        edges.cost_BM,
    )
    before, after = net.models(visible), net.models(changed.seen(is_seen))
    assert torch.equal(before, after)
    assert not torch.equal(net.models(edges), net.models(changed))


def test_slopes_are_known_where_cells_are_not() -> None:
    net, edges = small_graph()
    net.loss(edges, net.models(edges)).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_task_is_a_node_the_same_text_counts_otherwise_in_another_task() -> None:
    rng = np.random.default_rng(0)
    queries = [replace(q, text=f"question {i % 5}") for i, q in enumerate(worded_queries(240))]
    skill = {"maths": [0.9, 0.1], "code": [0.1, 0.9], "story": [0.5, 0.5]}
    right_QM = rng.random((240, 2)) < np.array([skill[q.task or ""] for q in queries])
    table = OutcomeTable(
        queries=queries,
        candidates=[Candidate(model="ant"), Candidate(model="owl")],
        query_index=np.repeat(np.arange(240), 2),
        candidate_index=np.tile([0, 1], 240),
        quality=right_QM.astype(np.float64).ravel(),
    )
    router = GraphRouter(embedder=TextEmbedder(num_features=16)).fit(table)
    asked = [replace(queries[0], task=task) for task in ("maths", "code", None, "never seen")]
    gap_Q = np.diff(router.estimate(asked).quality_QM, axis=1)[:, 0]
    assert gap_Q[0] < -0.4
    assert gap_Q[1] > 0.4
    assert abs(gap_Q[2]) < 0.25
    assert gap_Q[2] == gap_Q[3]


def two_kinds(num: int, num_models: int) -> OutcomeTable:
    """Return outcomes of a pool in which whoever is good at maths is bad at code, and the reverse."""
    rng = np.random.default_rng(0)
    queries = [q for q in worded_queries(num) if q.task != "story"]
    is_maths_Q = np.array([q.task == "maths" for q in queries])
    is_first_M = np.arange(num_models) % 2 == 0
    chance_QM = np.where(is_maths_Q[:, None] == is_first_M, 0.9, 0.1)
    return OutcomeTable(
        queries=queries,
        candidates=[Candidate(model=f"m{m}") for m in range(num_models)],
        query_index=np.repeat(np.arange(len(queries)), num_models),
        candidate_index=np.tile(np.arange(num_models), len(queries)),
        quality=(rng.random(chance_QM.shape) < chance_QM).astype(np.float64).ravel(),
    )


def test_a_newcomer_probed_on_one_topic_is_judged_on_another_as_its_likes_are() -> None:
    table = two_kinds(240, 13)
    *others, newcomer = table.candidates
    is_maths_Q = np.array([query.task == "maths" for query in table.queries])
    probe = table.where(is_maths_Q & (np.cumsum(is_maths_Q) <= 30)).select(candidates=[newcomer.name])
    code = [replace(q, id=f"new {q.id}") for q in worded_queries(60, seed=7) if q.task == "code"]

    def judged(router: GraphRouter | KNNRouter | RidgeRouter) -> float:
        router.fit(table.select(candidates=[other.name for other in others]))
        return float(router.add_candidate(newcomer, probe).estimate(code).quality_QM[:, -1].mean())

    assert judged(GraphRouter(embedder=EMBEDDER)) < 0.4
    # Whoever knows the newcomer by its own rows alone thinks that it is as good here as there.
    assert judged(KNNRouter(embedder=EMBEDDER)) > 0.7
    assert judged(RidgeRouter(embedder=EMBEDDER)) > 0.7


def test_a_newcomer_with_the_edges_of_an_old_candidate_has_its_state() -> None:
    table = real_table()
    router = GraphRouter(embedder=TextEmbedder(num_features=16)).fit(table)
    twin, old = (
        replace(table.candidates[3], model="twin"),
        table.select(candidates=[table.candidates[3].name]),
    )
    probe = OutcomeTable(
        queries=old.queries,
        candidates=[twin],
        query_index=old.query_index,
        candidate_index=old.candidate_index,
        quality=old.quality,
        cost_usd=old.cost_usd,
    )
    router.add_candidate(twin, probe)
    assert router.memory_ is not None
    at = sorted(table.names).index(table.candidates[3].name)
    np.testing.assert_allclose(
        router.memory_.quality_MS[-1], router.memory_.quality_MS[at], rtol=1e-4, atol=1e-5
    )


def test_costs_are_edges_too() -> None:
    table = real_table()
    # Every second query costs ten times as much, and its prompt says so.
    long_Q = np.arange(len(table.queries)) % 2 == 1
    queries = [
        replace(q, text="dear " * 9 if dear else "cheap " * 9)
        for q, dear in zip(table.queries, long_Q, strict=True)
    ]
    changed = OutcomeTable(
        queries=queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality,
        cost_usd=np.where(long_Q[table.query_index], 1e-2, 1e-3),
    )  # fmt: skip
    estimate = GraphRouter(embedder=TextEmbedder(num_features=16)).fit(changed).estimate(queries)
    assert estimate.cost_usd_QM[long_Q].mean() > 4.0 * estimate.cost_usd_QM[~long_Q].mean()
    assert estimate.cost_usd_QM.mean() == pytest.approx(changed.cost_usd.mean(), rel=0.1)


def test_the_order_of_the_table_changes_nothing() -> None:
    table = real_table()
    embedder = TextEmbedder(num_features=16).fit(table.queries)
    first = GraphRouter(embedder=embedder).fit(table).estimate(table.queries)
    again = GraphRouter(embedder=embedder).fit(shuffled(table, 3)).estimate(table.queries)
    np.testing.assert_array_equal(first.quality_QM, again.reorder(first.names).quality_QM)


def test_settings_are_checked() -> None:
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match=r"GraphRouter\.mask_share"):
            GraphRouter(mask_share=share)
