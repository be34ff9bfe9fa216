"""The checks' own data has the properties that let a broken promise show."""

from __future__ import annotations

import numpy as np

from turnout.checks import fixtures
from turnout.checks.policy_choice import dominators, some_mask


def test_the_table_is_full_and_the_same_every_time() -> None:
    table = fixtures.small_table()
    assert table.quality_QM.shape == (48, 4)
    assert table.observed_QM.all()
    assert table.fingerprint == fixtures.small_table().fingerprint != fixtures.small_table(seed=1).fingerprint


def test_no_order_is_the_order_of_the_alphabet() -> None:
    names = fixtures.small_table().names
    assert list(names) != sorted(names)


def test_the_best_candidate_depends_on_the_task() -> None:
    table = fixtures.small_table()
    means = {
        task: table.select(task=task, candidates=["owl", "yak"]).quality_QM.mean(axis=0).argmax()
        for task in ("maths", "code", "story")
    }
    assert means == {"maths": 0, "code": 1, "story": 0}


def test_fresh_queries_share_no_id_with_the_table() -> None:
    known = {query.id for query in fixtures.small_table().queries}
    assert known.isdisjoint(query.id for query in fixtures.fresh_queries())


def test_the_estimate_holds_candidates_that_nobody_should_choose() -> None:
    estimate = fixtures.small_estimate()
    dominated = [row for row in range(40) if "yak" in dominators(estimate, row, 3)]
    assert len(dominated) >= 26
    equal_cost = [row for row in dominated if estimate.cost_usd_QM[row, 2] == estimate.cost_usd_QM[row, 3]]
    assert 10 < len(equal_cost) < len(dominated)


def test_the_mask_leaves_somebody_to_every_query() -> None:
    mask_QM = some_mask(fixtures.small_estimate())
    assert mask_QM.any(axis=1).all()
    assert not mask_QM.all()


def test_a_long_query_is_a_megabyte_and_hard_texts_are_hard() -> None:
    assert len(fixtures.long_query().words) == 1_000_000
    texts = [query.text for query in fixtures.hard_queries()]
    assert None in texts
    assert "" in texts
    assert any("\ud800" in (text or "") for text in texts)


def test_letter_counts_are_shares_minus_their_mean() -> None:
    embedder = fixtures.LetterCounts(scale=3.0).fit(fixtures.small_queries())
    x_QF = embedder.embed(fixtures.small_queries())
    assert x_QF.shape == (48, 27)
    np.testing.assert_allclose(x_QF.mean(axis=0), 0.0, atol=1e-6)
