"""Hard is where the small one fails and the other does not; what is equally hard for both is not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import OutcomeTable
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, SafeRouteRouter

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)


def guards(num: int, seed: int) -> OutcomeTable:
    """Return a small and a large guard: maths is easy for both, code hard for one, stories for both."""
    rng = np.random.default_rng(seed)
    good_TM = np.array([[0.97, 0.97], [0.3, 0.95], [0.1, 0.12]])
    quality_QM = (rng.random((num, 2)) < good_TM[np.arange(num) % 3]).astype(float)
    return worded_table(quality_QM, cost_usd=np.tile([1e-5, 1e-3], (num, 1)))


def test_only_what_the_larger_one_solves_is_hard() -> None:
    router = SafeRouteRouter().fit(guards(450, seed=0))
    hard_QM = router.hard(worded_queries(90, seed=5))
    np.testing.assert_array_equal(hard_QM[:, 0], 0.0)
    maths, code, story = (hard_QM[kind::3, 1] for kind in range(3))
    assert code.min() > 0.35
    assert maths.max() < 0.2
    # The hardest kind of all, and no reason to call the larger one.
    assert story.max() < 0.3


def test_where_both_are_right_or_both_wrong_counts_alike() -> None:
    table = guards(240, seed=1)
    quality_QM = table.quality_QM.copy()
    same_Q = quality_QM[:, 0] == quality_QM[:, 1]
    turned_QM = np.where(same_Q[:, None], 1.0 - quality_QM, quality_QM)
    texts = [query.words for query in table.queries]
    asked = worded_queries(12, seed=7)

    def hard(values_QM: np.ndarray) -> np.ndarray:
        data = dense_table(values_QM, texts, cost_usd=table.cost_usd_QM)
        return np.asarray(SafeRouteRouter().fit(data).hard(asked))

    np.testing.assert_allclose(hard(quality_QM), hard(turned_QM), atol=1e-3)
    for cls in (KNNRouter, RidgeRouter):
        one, two = (
            cls().fit(dense_table(values, texts)).estimate(asked).quality_QM
            for values in (quality_QM, turned_QM)
        )
        assert np.abs(one - two).max() > 0.1


def test_what_is_won_is_a_probability_and_no_line() -> None:
    rng = np.random.default_rng(2)
    table = real_table(600)
    x_NF = np.asarray(EMBEDDER.embed(table.queries), np.float64)
    hard_N = 1.0 / (1.0 + np.exp(3.0 - 14.0 * x_NF @ rng.normal(size=x_NF.shape[1])))
    small_N = (rng.random(hard_N.size) > hard_N).astype(float)
    data = dense_table(
        np.stack([small_N, np.ones(hard_N.size)], axis=1), [query.words for query in table.queries],
        cost_usd=np.tile([1e-5, 1e-3], (hard_N.size, 1)),
    )  # fmt: skip

    def error(router: Router) -> float:
        found_QM = router.fit(data).estimate(table.queries).quality_QM
        return float(np.mean((found_QM[:, 1] - found_QM[:, 0] - hard_N) ** 2))

    mine = error(SafeRouteRouter(embedder=EMBEDDER, penalty=0.3))
    for other in (KNNRouter(embedder=EMBEDDER), RidgeRouter(embedder=EMBEDDER)):
        assert mine < 0.7 * error(other)


def test_the_estimate_is_the_small_one_plus_gain_minus_harm() -> None:
    table = real_table()
    router = SafeRouteRouter(embedder=EMBEDDER, small=table.names[4]).fit(table)
    estimate, hard_QM = router.estimate(table.queries), router.hard(table.queries)
    np.testing.assert_allclose(estimate.quality_QM.mean(axis=0), table.quality_QM.mean(axis=0), atol=0.02)
    both_M = ((1.0 - table.quality_QM[:, 4:5]) * table.quality_QM).mean(axis=0)
    both_M[4] = 0.0
    np.testing.assert_allclose(hard_QM.mean(axis=0), both_M, atol=0.02)


def test_a_newcomer_is_compared_with_what_is_expected_of_the_small_one() -> None:
    table = guards(450, seed=0)
    router = SafeRouteRouter().fit(table.select(candidates=["m0"]))
    router.add_candidate(table.candidates[1], table.where(np.arange(450) < 150))
    hard_Q = router.hard(worded_queries(90, seed=5))[:, 1]
    assert hard_Q[1::3].mean() > hard_Q[0::3].mean() + 0.2
    assert hard_Q[1::3].mean() > hard_Q[2::3].mean() + 0.2


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"SafeRouteRouter\.penalty"):
        SafeRouteRouter(penalty=0.0)
    with pytest.raises(InputError, match=r"SafeRouteRouter\.small"):
        SafeRouteRouter(embedder=EMBEDDER, small="nobody").fit(real_table())
