"""Mixed clusters: the published score written out, and what no scale can change."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import flat_length, holed_table, plain_means, real_table
from turnout.core import OutcomeTable
from turnout.core.errors import InputError
from turnout.core.outcomes import Floats
from turnout.features import TextEmbedder
from turnout.routers import AvengersRouter
from turnout.routers.avengers import unit_range
from turnout.routers.kmeans import closest

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


def scaled(table: OutcomeTable, *, cost: float = 1.0, quality: float = 1.0) -> OutcomeTable:
    return OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=quality * table.quality,
        cost_usd=cost * table.cost_usd,
    )


def written_out(router: AvengersRouter, table: OutcomeTable, performance: float) -> Floats:
    """Return the score by loops over queries, near clusters and candidates."""
    assert router.centre_KF is not None
    x_NF, centre_KF = EMBEDDER.embed(table.queries), router.centre_KF
    label_N = closest(x_NF, centre_KF)
    cost_NM = table.cost_usd_QM
    num = len(table.candidates)
    score_QM = np.zeros((len(table.queries), num))
    for row, x_F in enumerate(x_NF):
        away_K = np.linalg.norm(x_F - centre_KF, axis=1)
        near = np.argsort(away_K)[: router.num_near]
        weights = np.exp(-router.sharpness * away_K[near])
        for k, weight in zip(near, weights / weights.sum(), strict=True):
            p_M, q_M = table.quality_QM[label_N == k].mean(axis=0), cost_NM[label_N == k].mean(axis=0)
            good_M = (p_M - p_M.min()) / (p_M.max() - p_M.min()) if np.ptp(p_M) else 0.0 * p_M
            dear_M = (q_M - q_M.min()) / (q_M.max() - q_M.min()) if np.ptp(q_M) else 0.0 * q_M
            score_QM[row] += weight * (performance * good_M + (1.0 - performance) * (1.0 - dear_M))
    return score_QM


@pytest.mark.parametrize("performance", [0.0, 0.4, 1.0])
def test_the_score_is_the_published_one_written_out(performance: float) -> None:
    table = flat_length(real_table())
    router = AvengersRouter(embedder=EMBEDDER, k=8, num_near=3, prior=0.0).fit(table)
    found_QM = router.score(table.queries, performance=performance)
    np.testing.assert_allclose(found_QM, written_out(router, table, performance), atol=1e-5)


def test_the_score_does_not_know_the_unit_of_money_or_of_quality() -> None:
    table = real_table()
    one = AvengersRouter(embedder=EMBEDDER, k=8).fit(table).score(table.queries, performance=0.3)
    for other in (scaled(table, cost=7.0), scaled(table, quality=0.25)):
        again = AvengersRouter(embedder=EMBEDDER, k=8).fit(other).score(table.queries, performance=0.3)
        np.testing.assert_allclose(again, one, atol=1e-6)


def test_one_near_cluster_is_its_mean() -> None:
    table = real_table()
    router = AvengersRouter(embedder=EMBEDDER, k=8, num_near=1, prior=0.0).fit(table)
    assert router.centre_KF is not None
    label_Q = closest(EMBEDDER.embed(table.queries), router.centre_KF)
    found_QM = router.estimate(table.queries).quality_QM
    for cluster in set(label_Q.tolist()):
        inside = label_Q == cluster
        np.testing.assert_allclose(
            found_QM[inside], np.tile(table.quality_QM[inside].mean(axis=0), (inside.sum(), 1)), atol=1e-6
        )


def test_without_sharpness_all_near_clusters_weigh_alike() -> None:
    table = real_table()
    router = AvengersRouter(embedder=EMBEDDER, k=8, num_near=4, sharpness=0.0).fit(table)
    x_QF = EMBEDDER.embed(table.queries[:6])
    share_QK = router.shares(x_QF)
    assert (np.count_nonzero(share_QK, axis=1) == 4).all()
    np.testing.assert_allclose(share_QK[share_QK > 0], 0.25)
    assert router.centre_KF is not None
    away_QK = np.linalg.norm(x_QF[:, None] - router.centre_KF, axis=2)
    for away_K, share_K in zip(away_QK, share_QK, strict=True):
        assert away_K[share_K > 0].max() <= away_K[share_K == 0].min()


def test_all_clusters_near_and_alike_is_the_mean_of_cluster_means() -> None:
    table = holed_table()
    flat = AvengersRouter(embedder=EMBEDDER, k=1, num_near=9, sharpness=0.0, prior=0.0).fit(table)
    mean = plain_means(table, 5)
    np.testing.assert_allclose(flat.estimate(table.queries[:5]).quality_QM, mean.quality_QM, atol=1e-6)


def test_unit_range_by_hand() -> None:
    values_KM = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [np.nan, 4.0, 8.0], [np.nan, np.nan, np.nan]])
    found_KM = unit_range(values_KM)
    np.testing.assert_array_equal(found_KM[:2], [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(found_KM[2, 1:], [0.0, 1.0])


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"AvengersRouter\.num_near"):
        AvengersRouter(num_near=0)
    router = AvengersRouter(embedder=EMBEDDER).fit(real_table())
    with pytest.raises(InputError, match="performance"):
        router.score(real_table().queries[:1], performance=1.5)
