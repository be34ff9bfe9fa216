"""Blend: better than each of its members where they know different things, and silent about the deaf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import assert_same, dense_table, real_table, worded_queries
from turnout.core import artifact
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.outcomes import OutcomeTable
from turnout.features import TextEmbedder
from turnout.routers import (
    BestSingleRouter,
    BlendRouter,
    GroupMeanRouter,
    InferredGroupRouter,
    KNNRouter,
    RidgeRouter,
)
from turnout.routers.members import squeezed


def split_knowledge(num: int = 900, *, seed: int = 0) -> OutcomeTable:
    """Return outcomes that depend on the words of a text and, apart from them, on a task of random name."""
    rng = np.random.default_rng(seed)
    words = worded_queries(num, seed=seed)
    kind_Q, task_Q = np.arange(num) % 3, rng.integers(0, 4, num)
    of_text_KM, of_task_KM = rng.uniform(-0.2, 0.2, (3, 5)), rng.uniform(-0.2, 0.2, (4, 5))
    chance_QM = 0.5 + of_text_KM[kind_Q] + of_task_KM[task_Q]
    right_QM = (rng.random((num, 5)) < chance_QM).astype(np.float64)
    return dense_table(right_QM, [q.words for q in words], tasks=[f"t{task}" for task in task_Q])


def error(router: Router, train: OutcomeTable, test: OutcomeTable) -> float:
    """Return the squared error of quality."""
    return float(((router.fit(train).estimate(test.queries).quality_QM - test.quality_QM) ** 2).mean())


def test_it_joins_what_its_members_know_apart() -> None:
    table = split_knowledge()
    is_test = np.arange(900) >= 600
    train, test = table.where(~is_test), table.where(is_test)
    blend = BlendRouter(members=(RidgeRouter(), GroupMeanRouter()))
    found = error(blend, train, test)
    alone = (RidgeRouter(), GroupMeanRouter(), KNNRouter(), InferredGroupRouter(), BestSingleRouter())
    assert found < min(error(router, train, test) for router in alone) - 0.003
    assert blend.weights_ is not None
    assert (blend.weights_.own_K > 0.5).all()


def test_where_nothing_can_be_known_the_means_hold_the_weight() -> None:
    rng = np.random.default_rng(0)
    table = dense_table(
        (rng.random((600, 4)) < 0.5).astype(float), [q.words for q in worded_queries(600, seed=1)]
    )
    blend = BlendRouter(members=(RidgeRouter(), KNNRouter(k=5, prior=0.0))).fit(table)
    estimate, single = blend.estimate(table.queries), BestSingleRouter().fit(table).estimate(table.queries)
    knn = KNNRouter(k=5, prior=0.0).fit(table).estimate(table.queries)
    noise = np.abs(knn.quality_QM - single.quality_QM).mean()
    assert np.abs(estimate.quality_QM - single.quality_QM).mean() < 0.15 * noise


def test_given_weights_are_used_as_they_are_and_a_single_member_is_itself() -> None:
    table = real_table()
    alone = BlendRouter(members=(RidgeRouter(),), weights=((1.0, 1.0, 1.0),)).fit(table)
    np.testing.assert_allclose(
        alone.estimate(table.queries).quality_QM,
        RidgeRouter().fit(table).estimate(table.queries).quality_QM,
        atol=6e-4,  # near 1 a blend squeezes what a router clips
    )
    nobody = BlendRouter(members=(RidgeRouter(),), weights=((0.0, 0.0, 1.0),)).fit(table)
    single = BestSingleRouter().fit(table).estimate(table.queries)
    np.testing.assert_allclose(nobody.estimate(table.queries).quality_QM, single.quality_QM)
    np.testing.assert_allclose(nobody.estimate(table.queries).spread_QM, single.spread_QM)


def test_the_embedder_is_stored_once_and_a_request_is_embedded_once(tmp_path: Path) -> None:
    embedder = TextEmbedder(num_features=16)
    router = BlendRouter(embedder=embedder).fit(real_table())
    artifact.save(router, tmp_path / "blend")
    artifact.save(RidgeRouter(embedder=embedder).fit(real_table()), tmp_path / "ridge")
    size, other = (sum(p.stat().st_size for p in (tmp_path / n).iterdir()) for n in ("blend", "ridge"))
    assert size < 1.6 * other
    memories = {id(member.config()["embedder"]) for member in router.members_}
    assert len(memories) == 1


def test_long_batches_are_cut_and_say_the_same() -> None:
    table = real_table()
    router = BlendRouter(embedder=TextEmbedder(num_features=16)).fit(table)
    once = router.estimate(table.queries)
    many = router.estimate([*table.queries] * 6).rows(slice(5 * len(table.queries), None))
    assert_same(once, many, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"members": ()}, "at least one router"),
        ({"members": ("ridge",)}, "BlendRouter.members"),
        ({"weights": ((1.0, 1.0, 1.0),)}, "for 3 members"),
        ({"members": (RidgeRouter(),), "weights": ((1.0, 1.0, 0.5),)}, "sum to 1"),
    ],
)
def test_bad_members_and_weights_are_refused(config: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BlendRouter(**config)


def test_one_text_has_no_folds_and_gets_the_means() -> None:
    table = dense_table(np.array([[1.0, 0.0], [1.0, 0.5]]), ["same", "Same!"])
    estimate = BlendRouter().fit(table).estimate(table.queries)
    np.testing.assert_allclose(estimate.quality_QM, [[1.0, 0.25]] * 2, atol=1e-3)


def test_beyond_one_the_better_prediction_stays_the_better() -> None:
    beyond = np.array([[-0.2, 0.0, 0.001, 0.5, 0.999, 1.0, 1.1, 1.3]])
    found = squeezed(beyond)
    assert (np.diff(found[0, 1:]) > 0).all()
    assert (found < 1).all()
    np.testing.assert_array_equal(found[0, 1:5], beyond[0, 1:5])
    np.testing.assert_allclose(found, np.clip(beyond, 0, 1), atol=6e-4)


def test_on_a_table_with_holes_whoever_met_the_easy_queries_does_not_lead_for_that() -> None:
    rng = np.random.default_rng(0)
    level_Q1, value_M = 0.6 * rng.random((300, 1)), np.array([0.3, 0.2, 0.1, 0.0])
    met_QM = rng.random((300, 4)) < np.where(level_Q1 > 0.3, [[0.2, 0.5, 0.5, 0.9]], [[0.9, 0.5, 0.5, 0.1]])
    # Texts say nothing of how hard a query is.
    texts = [f"{'sheep goat cow hen'.split()[i % 4]} number {i}" for i in range(300)]
    table = dense_table(np.where(met_QM, level_Q1 + value_M, np.nan), texts)
    assert np.nanmean(table.quality_QM, axis=0).argmax() != 0
    estimate = BlendRouter(members=(RidgeRouter(), KNNRouter())).fit(table).estimate(table.queries)
    assert (estimate.quality_QM.argmax(axis=1) == 0).mean() > 0.9
