"""Nearest neighbours: limits that are known, honest shrinkage, and lists that find what brute force finds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import (
    assert_same,
    dense_table,
    flat_length,
    holed_table,
    plain_means,
    real_table,
)
from turnout.core.errors import InputError, UnknownNameError
from turnout.core.query import Query
from turnout.datasets import load
from turnout.features import TextEmbedder
from turnout.routers import BestSingleRouter, KNNRouter, smoothing
from turnout.routers.means import means_of
from turnout.routers.neighbours import build_lists, halved, nearest
from turnout.routers.smoothing import columns_of
from turnout.routers.targets import Targets, sampled


@pytest.mark.parametrize("search", ["exact", "lists"])
def test_all_neighbours_alike_is_the_mean(search: str) -> None:
    table = flat_length(holed_table())
    router = KNNRouter(k=10**6, prior=0.0, sharpness=0.0, floor=-1.0, search=search)  # type: ignore[arg-type]
    estimate = router.fit(table).estimate(table.queries[:7])
    mean = plain_means(table, 7)
    np.testing.assert_allclose(estimate.quality_QM, mean.quality_QM, atol=1e-9)
    np.testing.assert_allclose(
        estimate.cost_usd_QM, mean.cost_usd_QM, rtol=1e-6
    )  # stored in single precision


def test_one_neighbour_at_a_stored_query_is_its_outcome() -> None:
    table = real_table()
    estimate = KNNRouter(k=1, prior=0.0).fit(table).estimate(table.queries)
    texts = [query.text for query in table.queries]
    once = np.array([texts.count(text) == 1 for text in texts])
    np.testing.assert_allclose(estimate.quality_QM[once], table.quality_QM[once], atol=1e-12)
    np.testing.assert_allclose(estimate.cost_usd_QM[once], table.cost_usd_QM[once], rtol=1e-6)


def test_an_infinite_prior_is_the_mean() -> None:
    table = holed_table()
    estimate = KNNRouter(k=20, prior=1e12).fit(table).estimate(table.queries[:9])
    mean = plain_means(table, 9)
    np.testing.assert_allclose(estimate.quality_QM, mean.quality_QM, atol=1e-9)


def test_smoothing_equals_the_formula_cell_by_cell() -> None:
    rng = np.random.default_rng(0)
    quality_NM = np.where(rng.random((30, 4)) < 0.4, np.nan, rng.random((30, 4)))
    cost_NM = np.where(rng.random((30, 4)) < 0.4, np.nan, rng.random((30, 4)))
    targets = Targets(quality_NM, cost_NM, np.full((30, 4), np.nan))
    means, prior = means_of(targets), 1.5
    index_QK, weight_QK = rng.integers(0, 30, (5, 8)), rng.random((5, 8))
    answer = columns_of(targets).smooth(index_QK, weight_QK, means, prior)
    for q in range(5):
        for m in range(4):
            for found, values_NM, mean in (
                (answer.quality_QM, quality_NM, means.quality[m]),
                (answer.cost_QM, cost_NM, means.cost_usd[m]),
            ):
                v = values_NM[index_QK[q], m]
                w = np.where(np.isnan(v), 0.0, weight_QK[q])
                expected = (np.nansum(w * np.nan_to_num(v)) + prior * mean) / (w.sum() + prior)
                assert found[q, m] == pytest.approx(expected)
            v, w = quality_NM[index_QK[q], m], weight_QK[q]
            v, w = v[~np.isnan(v)], w[~np.isnan(v)]
            mu = answer.quality_QM[q, m]
            pull = prior * (means.variance[m] + (means.quality[m] - mu) ** 2)
            variance = (np.sum(w * (v - mu) ** 2) + pull) / (w.sum() + prior)
            of_mean = prior**2 * means.variance[m] / means.num[m]
            error = np.sqrt(variance * (np.sum(w**2) + prior) + of_mean) / (w.sum() + prior)
            assert answer.spread_QM[q, m] == pytest.approx(error)
    assert np.isnan(answer.latency_s_QM).all()


@pytest.mark.parametrize("is_holed", [False, True])
def test_one_product_with_all_rows_sums_what_a_gather_sums(
    is_holed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    quality_NM = np.where(is_holed & (rng.random((30, 4)) < 0.4), np.nan, rng.random((30, 4)))
    targets = Targets(quality_NM, rng.random((30, 4)), np.full((30, 4), np.nan))
    columns, means = columns_of(targets), means_of(targets)
    index_QK = np.stack([rng.permutation(30)[:8] for _ in range(9)])
    weight_QK = rng.random((9, 8))
    assert not columns.is_wide(9, 8)
    gathered = columns.smooth(index_QK, weight_QK, means, 1.5)
    monkeypatch.setattr(smoothing, "_WIDE", 12)
    assert columns.is_wide(9, 8)
    assert not columns.is_wide(1, 8)
    summed = columns.smooth(index_QK, weight_QK, means, 1.5)
    for name in ("quality_QM", "spread_QM", "cost_QM"):
        np.testing.assert_allclose(getattr(gathered, name), getattr(summed, name), rtol=1e-9)


def test_the_smoothing_is_chosen_on_every_candidate_of_a_usual_pool_and_on_some_of_a_large_one() -> None:
    assert sampled([f"m{i}" for i in range(256)]).tolist() == list(range(256))
    names = [f"m{i}" for i in range(1_000)]
    found, turned = sampled(names), sampled(names[::-1])
    assert 128 < found.size <= 256
    assert {names[i] for i in found} == {names[::-1][i] for i in turned}


def test_a_missing_cell_counts_for_nobody() -> None:
    table = real_table()
    gone = (table.candidate_index == 2) & (table.query_index % 2 == 0)
    full = KNNRouter(k=20, prior=3.0).fit(table).estimate(table.queries[:9])
    holed = KNNRouter(k=20, prior=3.0).fit(table.with_rows(~gone)).estimate(table.queries[:9])
    others = [j for j in range(9) if j != 2]
    np.testing.assert_allclose(full.quality_QM[:, others], holed.quality_QM[:, others], atol=1e-9)
    assert (full.quality_QM[:, 2] != holed.quality_QM[:, 2]).any()
    half = table.with_rows(~gone).quality_QM[:, 2]
    assert holed.quality_QM[:, 2].mean() == pytest.approx(np.nanmean(half), abs=0.2)


def test_a_tie_stays_a_tie() -> None:
    texts = [f"sum of {i} and {i + 1}" for i in range(12)]
    table = dense_table(np.tile([[0.5, 0.5, 1.0]], (12, 1)), texts)
    estimate = KNNRouter().fit(table).estimate(table.queries)
    np.testing.assert_array_equal(estimate.quality_QM[:, 0], estimate.quality_QM[:, 1])


def test_a_query_like_nothing_stored_gets_the_mean_and_the_widest_spread() -> None:
    table = real_table()
    router = KNNRouter(k=20, prior=3.0).fit(table)
    known, unknown = router.estimate([table.queries[0], Query(id="x", text=None)]).rows([0, 1]).spread_QM
    mean = BestSingleRouter().fit(table).estimate([Query(id="x", text=None)])
    blank = router.estimate([Query(id="x", text=None)])
    np.testing.assert_allclose(blank.quality_QM, mean.quality_QM)
    assert (unknown > known).all()


def test_near_texts_are_told_apart_from_far_ones() -> None:
    sums = [f"what is the sum of {i} and {i * 7}" for i in range(20)]
    poems = [f"write a poem about flower number {i} in spring" for i in range(20)]
    quality_QM = np.array([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)
    router = KNNRouter(k=10, prior=1.0).fit(dense_table(quality_QM, sums + poems))
    new = [Query(id="s", text="the sum of 5 and 99"), Query(id="p", text="a poem about a flower")]
    np.testing.assert_array_equal(router.estimate(new).quality_QM.argmax(axis=1), [0, 1])


@pytest.mark.parametrize("num_features", [32, 128])
def test_lists_find_what_brute_force_finds(num_features: int) -> None:
    queries = load("open9").queries
    stored, asked = queries[::2], queries[1::8]
    embedder = TextEmbedder(num_features=num_features, sample_rows=1_500).fit(stored)
    x_NF, x_QF = embedder.embed(stored), embedder.embed(asked)
    lists, row = build_lists(x_NF, k=20, recall=0.995, rng=np.random.default_rng(0))
    index_QK, similarity_QK = lists.search(x_QF, 20)
    truth_QK, true_similarity_QK = nearest(x_NF, x_QF, 20)
    # A stored duplicate is as good as the one that brute force took: similarities are compared.
    worst_Q = true_similarity_QK.min(axis=1)
    recall = (similarity_QK >= worst_Q[:, None] - 1e-6).mean()
    assert recall >= 0.99
    assert lists.num_probes < lists.start.size - 1
    np.testing.assert_array_equal(lists.x_NF, x_NF[row])
    found = np.take_along_axis(x_QF @ x_NF.T, row[index_QK], axis=1)
    np.testing.assert_allclose(similarity_QK, found, atol=1e-5)
    assert truth_QK.shape == index_QK.shape


def test_lists_and_brute_force_estimate_alike_at_full_recall() -> None:
    table = real_table()
    exact = KNNRouter(k=10, prior=1.0, search="exact").fit(table).estimate(table.queries)
    lists = KNNRouter(k=10, prior=1.0, search="lists", recall=1.0).fit(table)
    found = lists.estimate(table.queries)
    close = np.isclose(exact.quality_QM, found.quality_QM, atol=1e-5).all(axis=1)
    assert close.mean() > 0.97
    assert_same(found, lists.estimate(table.queries), rtol=0, atol=0)


def test_lists_are_kept_only_where_they_spare_most_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centre_LF = rng.standard_normal((40, 16))
    apart_NF = centre_LF[rng.integers(40, size=4_000)] + 0.05 * rng.standard_normal((4_000, 16))
    even_NF = rng.standard_normal((4_000, 16))
    for x_NF, pay in ((apart_NF, True), (even_NF, False)):
        unit_NF = (x_NF / np.linalg.norm(x_NF, axis=1, keepdims=True)).astype(np.float32)
        assert build_lists(unit_NF, k=80, recall=0.995, rng=rng)[0].pay is pay
    monkeypatch.setattr("turnout.routers.knn._EXACT_BELOW", 100)
    table = real_table()
    auto, lists, exact = (
        KNNRouter(k=10, prior=1.0, search=search).fit(table) for search in ("auto", "lists", "exact")
    )
    assert lists.banks_[0].lists is not None
    assert not lists.banks_[0].lists.pay
    assert auto.banks_[0].lists is None
    assert_same(auto.estimate(table.queries), exact.estimate(table.queries), rtol=0, atol=0)


def test_the_number_of_neighbours_is_chosen_without_the_row_itself() -> None:
    # Quality is noise, so that the best average is over as many as there may be; with the row itself
    # among its neighbours the smallest number would look best.
    rng = np.random.default_rng(0)
    texts = [f"w{i % 5} {' '.join(rng.choice(list('abcdefgh'), 4))} {i}" for i in range(400)]
    router = KNNRouter().fit(dense_table(rng.integers(0, 2, (400, 2)).astype(float), texts))
    assert router.smoothing_ is not None
    assert router.smoothing_.k >= 80


@pytest.mark.parametrize("arguments", [{"k": 0}, {"prior": -1.0}, {"floor": 1.0}, {"recall": 0.0}])
def test_a_setting_out_of_range_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="KNNRouter"):
        KNNRouter(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="search"):
        KNNRouter(search="fast")  # type: ignore[arg-type]


def test_an_artifact_holds_vectors_by_half_and_answers_the_same() -> None:
    table = real_table()
    router = KNNRouter().fit(table)
    state = router.state()
    assert state.arrays["0/x"].dtype == np.float16
    assert state.arrays["0/quality"].dtype == np.float32
    assert "0/latency_s" not in state.arrays
    copy = KNNRouter()
    copy.restore(state)
    assert_same(copy.estimate(table.queries), router.estimate(table.queries), rtol=0.0, atol=0.0)
    x_NF = TextEmbedder().fit(table.queries).embed(table.queries)
    assert np.abs(halved(x_NF) @ halved(x_NF).T - x_NF @ x_NF.T).max() < 1e-3
