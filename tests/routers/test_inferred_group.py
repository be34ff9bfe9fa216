"""Inferred groups: the told task is believed, the untold one is read from the text with its doubt."""

from __future__ import annotations

import numpy as np

from tests.routers.tables import assert_same, real_table, worded_queries, worded_table
from turnout.core.query import Query
from turnout.routers import GroupMeanRouter, InferredGroupRouter
from turnout.routers.group_prior import group_prior

RNG = np.random.default_rng(0)
QUALITY_QM = RNG.random((90, 4))


def test_a_told_task_gets_the_group_mean_whatever_its_text_says() -> None:
    table = worded_table(QUALITY_QM, cost_usd=RNG.uniform(1, 2, (90, 4)))
    told = [Query(id=q.id, text="castle winter", task="code") for q in worded_queries(6)]
    estimate = InferredGroupRouter(prior=7.0).fit(table).estimate(told)
    truth = GroupMeanRouter(prior=7.0).fit(table).estimate(told)
    np.testing.assert_allclose(estimate.quality_QM, truth.quality_QM, atol=1e-12)


def test_an_untold_task_is_inferred_and_a_task_is_ignored_where_it_is_not_to_be_read() -> None:
    table = worded_table(QUALITY_QM)
    told, untold = worded_queries(30, seed=5), worded_queries(30, seed=5, has_task=False)
    truth = GroupMeanRouter(prior=7.0).fit(table).estimate(told)
    inferred = InferredGroupRouter(prior=7.0, penalty=1e-3).fit(table).estimate(untold)
    np.testing.assert_allclose(inferred.quality_QM, truth.quality_QM, atol=0.01)
    blind = InferredGroupRouter(prior=7.0, reads_task=False).fit(table)
    claimed = [Query(id=q.id, text=q.text, task="story") for q in untold]
    assert_same(blind.estimate(untold), blind.estimate(claimed))
    assert set(blind.groups) == {"maths", "code", "story"}


def test_quality_and_spread_are_those_of_the_mixture_over_groups() -> None:
    router = InferredGroupRouter(reads_task=False, penalty=3.0).fit(real_table())
    queries = real_table().queries[:30]
    assert router.known_ is not None
    share_QD, profiles = router.shares(queries), router.known_.profiles
    assert 0.1 < share_QD.max(axis=1).mean() < 0.99
    estimate = router.estimate(queries)
    for row in range(30):
        for column in range(9):
            p_D, mean_D, error_D = share_QD[row], profiles.quality_DM[:, column], profiles.error_DM[:, column]
            mean = sum(p * m for p, m in zip(p_D, mean_D, strict=True))
            square = sum(p * (e**2 + (m - mean) ** 2) for p, e, m in zip(p_D, error_D, mean_D, strict=True))
            assert abs(estimate.quality_QM[row, column] - mean) < 1e-9
            assert abs(estimate.spread_QM[row, column] - square**0.5) < 1e-9


def test_doubt_about_the_group_widens_the_spread() -> None:
    quality_QM = np.tile([[0.9, 0.5], [0.1, 0.5], [0.9, 0.5]], (60, 1))
    router = InferredGroupRouter(penalty=1.0).fit(worded_table(quality_QM))
    texts = ("integral prime matrix", "integral prime loop compile")
    clear, mixed = router.estimate([Query(id=text, text=text) for text in texts]).spread_QM
    assert mixed[0] > 1.5 * clear[0]
    assert mixed[1] < 0.05


def test_the_prior_is_the_ratio_of_the_two_variances() -> None:
    rng = np.random.default_rng(3)
    group_N = np.repeat(np.arange(200), 30)
    truth_DM = 0.5 + 0.1 * rng.standard_normal((200, 5))
    quality_NM = truth_DM[group_N] + 0.3 * rng.standard_normal((group_N.size, 5))
    found = group_prior(np.eye(200)[group_N], quality_NM)
    assert abs(found - 0.09 / 0.01) < 1.0
    alike = group_prior(np.eye(200)[group_N], 0.5 + 0.3 * rng.standard_normal((group_N.size, 5)))
    assert alike > 100.0
    assert group_prior(np.ones((40, 1)), rng.random((40, 2))) == 40.0


def test_rare_tasks_are_placed_by_their_text() -> None:
    table = worded_table(QUALITY_QM)
    router = InferredGroupRouter(max_groups=2).fit(table)
    assert router.groups == ("code", "maths")
    share_QD = router.shares([Query(id="q", text="loop compile pointer", task="story")])
    assert share_QD[0].argmax() == 0
