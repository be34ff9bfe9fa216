"""Domain experts: what a text's domain says and nothing else, and a domain that no outcome moves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import WORDS, assert_same, real_table, worded_queries, worded_table
from turnout.core.errors import UnknownNameError
from turnout.routers import DomainExpertsRouter, GroupMeanRouter

RNG = np.random.default_rng(0)
QUALITY_QM = RNG.random((90, 4))


def test_it_is_the_group_mean_of_a_task_that_nobody_told_it() -> None:
    table = worded_table(QUALITY_QM, cost_usd=RNG.uniform(1, 2, (90, 4)))
    told, untold = worded_queries(30, seed=5), worded_queries(30, seed=5, has_task=False)
    router = DomainExpertsRouter(prior=7.0).fit(table)
    estimate = router.estimate(untold)
    truth = GroupMeanRouter(prior=7.0).fit(table).estimate(told)
    np.testing.assert_allclose(estimate.quality_QM, truth.quality_QM, atol=1e-12)
    np.testing.assert_allclose(estimate.spread_QM, truth.spread_QM, rtol=0.03)
    assert router.place(untold) == [query.task for query in told]


def test_the_domain_of_a_text_does_not_depend_on_outcomes_or_on_the_task_it_claims() -> None:
    first = DomainExpertsRouter().fit(worded_table(QUALITY_QM))
    second = DomainExpertsRouter().fit(worded_table(1.0 - QUALITY_QM**3))
    queries = real_table().queries[:20]
    assert first.place(queries) == second.place(queries)
    claimed = [type(query)(id=query.id, text=query.text, task="story") for query in queries]
    assert_same(first.estimate(queries), first.estimate(claimed))


def test_all_queries_of_a_domain_get_the_same_numbers() -> None:
    router = DomainExpertsRouter().fit(real_table())
    estimate = router.estimate(real_table().queries)
    num_domains = len(set(router.place(real_table().queries)))
    assert len(np.unique(estimate.quality_QM, axis=0)) == num_domains > 1


def test_soft_domains_average_by_probability() -> None:
    table, queries = real_table(), real_table().queries[:25]
    router = DomainExpertsRouter(is_soft=True, penalty=3.0).fit(table)
    assert router.known_ is not None
    quality_DM = router.known_.profiles.quality_DM
    share_QD = router.known_.domains.shares(router.known_.embed(queries))
    assert 0.1 < share_QD.max(axis=1).mean() < 0.99
    np.testing.assert_allclose(router.estimate(queries).quality_QM, share_QD @ quality_DM, atol=1e-12)
    hard = DomainExpertsRouter(penalty=3.0).fit(table).estimate(queries)
    np.testing.assert_allclose(hard.quality_QM, quality_DM[share_QD.argmax(axis=1)])


def test_a_named_expert_stands_first_on_its_domain_alone() -> None:
    quality_QM = np.tile([0.9, 0.5, 0.1, 1.0], (90, 1))
    router = DomainExpertsRouter(experts=(("code", "m2"),)).fit(worded_table(quality_QM))
    first_Q = router.estimate(worded_queries(30, has_task=False)).quality_QM.argmax(axis=1)
    assert first_Q.tolist() == [2 if list(WORDS)[i % 3] == "code" else 3 for i in range(30)]
    with pytest.raises(UnknownNameError, match="m22"):
        DomainExpertsRouter(experts=(("code", "m22"),)).fit(worded_table(quality_QM))
    with pytest.raises(UnknownNameError, match="does not have; got: 'cod'; did you mean 'code'"):
        DomainExpertsRouter(experts=(("code", "m2"), ("cod", "m1"))).fit(worded_table(quality_QM))
