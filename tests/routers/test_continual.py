"""Continual: tasks one after the other give what all at once give, old tasks stay, new experts join."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import ARRAYS, assert_same, dense_table, real_table, worded_queries, worded_table
from turnout.core import Candidate, OutcomeTable
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import ContinualRouter, KNNRouter, RidgeRouter

EMBEDDER = TextEmbedder(num_features=16).fit(worded_queries(240))
SKILL = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.2, 0.6]])
"""Quality of three candidates on maths, code and story."""


def planted(num: int = 240, *, seed: int = 0) -> OutcomeTable:
    rng = np.random.default_rng(seed)
    return worded_table((rng.random((num, 3)) < SKILL[np.arange(num) % 3]).astype(np.float64), seed=seed)


def of_task(table: OutcomeTable, *tasks: str) -> OutcomeTable:
    """Return the rows of some tasks."""
    return table.where([query.task in tasks for query in table.queries])


def expert(table: OutcomeTable, name: str, quality: float) -> OutcomeTable:
    """Return the table with one more candidate of one quality on every row."""
    quality_QM = np.concatenate([table.quality_QM, np.full((len(table.queries), 1), quality)], axis=1)
    made = dense_table(quality_QM, [q.words for q in table.queries], tasks=[q.task for q in table.queries])
    return OutcomeTable(
        queries=made.queries, candidates=[*table.candidates, Candidate(model=name)],
        query_index=made.query_index, candidate_index=made.candidate_index, quality=made.quality,
    )  # fmt: skip


def test_tasks_one_after_the_other_give_what_all_at_once_give() -> None:
    table, queries = real_table(), real_table().queries[:40]
    embedder = TextEmbedder(num_features=16).fit(table.queries)
    tasks = sorted({query.task or "" for query in table.queries})
    together = ContinualRouter(embedder=embedder).fit(table).estimate(queries)
    for order in (tasks, tasks[::-1]):
        one = ContinualRouter(embedder=embedder).fit(of_task(table, order[0]))
        for task in order[1:]:
            one.learn_task(of_task(table, task))
        found = one.estimate(queries)
        np.testing.assert_allclose(found.quality_QM, together.quality_QM, atol=1e-12)
        np.testing.assert_allclose(found.spread_QM, together.spread_QM, atol=1e-12)


def test_old_tasks_are_not_forgotten_where_others_learn_the_new_one_alone() -> None:
    table = planted()
    old, new = of_task(table, "maths", "code"), of_task(table, "story")
    asked = [query for query in worded_queries(90, seed=9) if query.task != "story"]
    right = np.array([{"maths": 0, "code": 1}[query.task or ""] for query in asked])
    router = ContinualRouter(embedder=EMBEDDER).fit(old).learn_task(new)
    assert (router.estimate(asked).quality_QM.argmax(axis=1) == right).mean() > 0.95
    for cls in (KNNRouter, RidgeRouter):
        forgotten = cls(embedder=EMBEDDER).fit(old).fit(new).estimate(asked).quality_QM.argmax(axis=1)
        assert (forgotten == right).mean() < 0.6


def test_a_new_expert_serves_its_task_and_takes_no_old_one_over() -> None:
    table = planted()
    router = ContinualRouter(embedder=EMBEDDER).fit(of_task(table, "maths", "code"))
    queries = worded_queries(90, seed=9)
    before = router.estimate(queries).quality_QM.argmax(axis=1)
    router.learn_task(expert(of_task(table, "story"), "teller", 1.0))
    after = router.estimate(queries)
    assert after.names[-1] == "teller"
    is_story = np.array([query.task == "story" for query in queries])
    choice = after.quality_QM.argmax(axis=1)
    assert (choice[is_story] == 3).mean() > 0.9
    # It is perfect on all that it was ever tried on; its mean would win everywhere.
    np.testing.assert_array_equal(choice[~is_story], before[~is_story])
    assert (after.spread_QM[~is_story, 3] > 0.3).all()


def test_no_row_is_kept() -> None:
    fitted = [ContinualRouter(embedder=EMBEDDER).fit(planted(num)) for num in (60, 240)]
    sizes = [sum(array.size for array in router.state().arrays.values()) for router in fitted]
    assert sizes[0] == sizes[1]


def test_the_vector_of_a_task_does_not_depend_on_the_others() -> None:
    table = planted()
    alone = ContinualRouter(embedder=EMBEDDER).fit(of_task(table, "code"))
    among = ContinualRouter(embedder=EMBEDDER).fit(table)
    np.testing.assert_array_equal(alone.records_["code"].vector_F, among.records_["code"].vector_F)
    assert among.tasks == ("code", "maths", "story")
    placed = among.shares(worded_queries(60, seed=9)).argmax(axis=1)
    assert (placed == np.tile([1, 0, 2], 20)).mean() > 0.95


def test_a_candidate_that_was_only_listed_is_known_after_its_first_task() -> None:
    table = planted()
    listed = OutcomeTable(
        queries=of_task(table, "maths").queries, candidates=[*table.candidates, Candidate(model="late")],
        query_index=of_task(table, "maths").query_index,
        candidate_index=of_task(table, "maths").candidate_index, quality=of_task(table, "maths").quality,
    )  # fmt: skip
    router = ContinualRouter(embedder=EMBEDDER).fit(listed)
    queries = worded_queries(6, seed=9)
    assert np.isnan(router.estimate(queries).quality_QM[:, 3]).all()
    before = router.clone().fit(listed).learn_task(of_task(table, "code")).estimate(queries)
    router.learn_task(expert(of_task(table, "code"), "late", 0.9))
    found = router.estimate(queries)
    assert np.isfinite(found.quality_QM).all()
    assert found.names == before.names
    for name in ARRAYS[:2]:
        assert np.isfinite(getattr(found, name)[:, 3]).all()


def test_shares_are_of_the_best_tasks_alone() -> None:
    router = ContinualRouter(embedder=EMBEDDER, top_k=1).fit(planted())
    share_QD = router.shares(worded_queries(12, seed=9))
    assert set(share_QD.ravel().tolist()) == {0.0, 1.0}
    assert_same(router.estimate([]), router.estimate([]))


def test_a_known_task_is_refused_and_settings_are_checked() -> None:
    table = planted(60)
    router = ContinualRouter(embedder=EMBEDDER).fit(of_task(table, "maths"))
    with pytest.raises(InputError, match="tasks that are new"):
        router.learn_task(table)
    with pytest.raises(InputError, match=r"ContinualRouter\.top_k"):
        ContinualRouter(top_k=0)
    with pytest.raises(InputError, match=r"ContinualRouter\.prior"):
        ContinualRouter(prior=-1.0)
