"""Models as vectors of means per cluster: equal vectors, equal estimates, whoever they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from tests.routers.tables import assert_same, dense_table, flat_length, holed_table, plain_means, real_table
from turnout.core import Candidate, OutcomeTable
from turnout.core.contracts import State
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, UniRouteRouter
from turnout.routers.kmeans import closest

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)
MAPS: tuple[Literal["kmeans", "learned"], ...] = ("kmeans", "learned")


def labels(router: UniRouteRouter, table: OutcomeTable) -> np.ndarray:
    assert router.centre_KF is not None
    return closest(EMBEDDER.embed(table.queries), router.centre_KF)


def test_a_query_gets_the_mean_of_its_cluster_exactly() -> None:
    table = real_table()
    router = UniRouteRouter(embedder=EMBEDDER, k=6, prior=0.0).fit(table)
    estimate, label_Q = router.estimate(table.queries), labels(router, table)
    assert len(set(label_Q.tolist())) == 6
    for cluster in range(6):
        inside = label_Q == cluster
        mean_M = table.quality_QM[inside].mean(axis=0)
        # The same number for every query inside: neither neighbours nor a linear head can do that.
        np.testing.assert_allclose(
            estimate.quality_QM[inside], np.tile(mean_M, (inside.sum(), 1)), atol=1e-12
        )
    for other in (KNNRouter(embedder=EMBEDDER), RidgeRouter(embedder=EMBEDDER)):
        found_QM = other.fit(table).estimate(table.queries).quality_QM
        assert found_QM[label_Q == 0].std(axis=0).max() > 1e-3


@pytest.mark.parametrize("cluster_map", MAPS)
def test_equal_vectors_get_equal_estimates_though_the_prompts_differ(
    cluster_map: Literal["kmeans", "learned"],
) -> None:
    table = flat_length(real_table())
    router = UniRouteRouter(embedder=EMBEDDER, k=5, prior=0.0, cluster_map=cluster_map).fit(table)
    label_Q = labels(router, table)
    # A newcomer is probed on half of the prompts; on each it has the mean of candidate 2 in the cluster.
    mean_K = np.array([table.quality_QM[label_Q == k, 2].mean() for k in range(5)])
    half = np.flatnonzero(np.arange(label_Q.size) % 2 == 0)
    probe = OutcomeTable(
        queries=table.queries,
        candidates=[Candidate(model="newcomer")],
        query_index=half,
        candidate_index=np.zeros(half.size, np.int64),
        quality=mean_K[label_Q[half]],
    )
    router.add_candidate(Candidate(model="newcomer"), probe)
    found_QM = router.estimate(table.queries).quality_QM
    np.testing.assert_allclose(found_QM[:, -1], found_QM[:, 2], atol=1e-6)
    assert found_QM[:, 2].std() > 0.01


@pytest.mark.parametrize("cluster_map", MAPS)
def test_a_newcomer_with_the_outcomes_of_an_old_candidate_gets_its_estimates(
    cluster_map: Literal["kmeans", "learned"],
) -> None:
    table = real_table()
    router = UniRouteRouter(embedder=EMBEDDER, cluster_map=cluster_map).fit(table)
    twin = replace(table.candidates[3], model="twin")
    alone = table.select(candidates=[table.candidates[3].name])
    router.add_candidate(twin, replace_pool(alone, twin))
    estimate = router.estimate(table.queries[:20])
    for name in ("quality_QM", "spread_QM", "cost_usd_QM"):
        array = getattr(estimate, name)
        np.testing.assert_allclose(array[:, -1], array[:, 3], rtol=1e-9)


@pytest.mark.parametrize("cluster_map", MAPS)
def test_the_names_of_clusters_mean_nothing(cluster_map: Literal["kmeans", "learned"]) -> None:
    table = holed_table()
    router = UniRouteRouter(embedder=EMBEDDER, k=7, cluster_map=cluster_map).fit(table)
    before = router.estimate(table.queries)
    state, order = router.state(), np.random.default_rng(0).permutation(7)
    arrays = {
        name: array[np.append(order, 7)] if name.startswith("cluster.") else array
        for name, array in state.arrays.items()
    }
    arrays["centre"] = arrays["centre"][order]
    if cluster_map == "learned":
        arrays |= {
            "map.weight": arrays["map.weight"][:, order],
            "map.bias": arrays["map.bias"][order],
        }
    again = UniRouteRouter(embedder=EMBEDDER, k=7, cluster_map=cluster_map)
    again.restore(State(arrays=arrays, values=state.values, parts=state.parts))
    assert_same(before, again.estimate(table.queries), rtol=1e-5)


def test_shares_sum_to_one_and_a_blank_query_is_of_no_cluster() -> None:
    table = real_table()
    for cluster_map in MAPS:
        router = UniRouteRouter(embedder=EMBEDDER, cluster_map=cluster_map).fit(table)
        x_QF = EMBEDDER.embed(table.queries[:9]).copy()
        x_QF[3] = 0.0
        np.testing.assert_allclose(router.shares(x_QF).sum(axis=1), [1, 1, 1, 0, 1, 1, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("setting", [{"k": 1, "prior": 0.0}, {"prior": 1e9}])
def test_one_cluster_and_an_infinite_prior_are_the_means(setting: dict[str, float]) -> None:
    table = holed_table()
    router = UniRouteRouter(embedder=EMBEDDER, **setting).fit(table)  # type: ignore[arg-type]
    mean = plain_means(table, 9)
    np.testing.assert_allclose(router.estimate(table.queries[:9]).quality_QM, mean.quality_QM, atol=1e-6)


def test_the_number_of_clusters_is_the_one_of_planted_topics() -> None:
    # Ten topics; who is right depends on the topic alone, so five clusters mix and eighty thin out.
    rng = np.random.default_rng(0)
    topic_Q = np.arange(600) % 10
    texts = [f"{'abcdefghij'[t] * 40}{'klm'[rng.integers(3)]}" for t in topic_Q]
    right_TM = rng.random((10, 6))
    quality_QM = (rng.random((600, 6)) < right_TM[topic_Q]).astype(np.float64)
    router = UniRouteRouter(embedder=TextEmbedder(num_features=16)).fit(dense_table(quality_QM, texts))
    assert router.centre_KF is not None
    assert 10 <= router.centre_KF.shape[0] <= 20


def test_probes_need_not_be_prompts_of_the_table() -> None:
    table = real_table()
    half = table.with_rows(table.query_index < len(table.queries) // 2).where(
        np.arange(len(table.queries)) < len(table.queries) // 2
    )
    rest = table.where(np.arange(len(table.queries)) >= len(table.queries) // 2)
    newcomer = table.candidates[0]
    others = [candidate.name for candidate in table.candidates[1:]]
    router = UniRouteRouter(embedder=EMBEDDER).fit(half.select(candidates=others))
    router.add_candidate(newcomer, rest)
    estimate = router.estimate(rest.queries)
    assert abs(estimate.quality_QM[:, -1].mean() - rest.quality_QM[:, 0].mean()) < 0.1


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"UniRouteRouter\.k"):
        UniRouteRouter(k=0)
    with pytest.raises(InputError, match=r"UniRouteRouter\.prior"):
        UniRouteRouter(prior=-1.0)


def replace_pool(table: OutcomeTable, candidate: Candidate) -> OutcomeTable:
    """Return a table of one candidate under another name."""
    return OutcomeTable(
        queries=table.queries,
        candidates=[candidate],
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
    )
