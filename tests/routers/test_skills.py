"""Skills: profiles against loops, what is read of a text, named skills, and who is recruited."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import OutcomeTable, Query
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, RidgeRouter, SkillsRouter

EMBEDDER = TextEmbedder(num_features=16).fit(worded_queries(240))
SKILL = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.2, 0.5]])


def named(table: OutcomeTable, skills: list[str]) -> OutcomeTable:
    """Return the table with the skills of each query written into its tag."""
    queries = [replace(q, tags={"skills": text}) for q, text in zip(table.queries, skills, strict=True)]
    return OutcomeTable(
        queries=queries, candidates=table.candidates, query_index=table.query_index,
        candidate_index=table.candidate_index, quality=table.quality,
    )  # fmt: skip


def test_profiles_and_weights_are_those_of_loops() -> None:
    table = real_table()
    router = SkillsRouter(embedder=EMBEDDER, least=2).fit(table)
    needs = router.skills(table.queries)
    assert max(len(found) for found in needs) == 5
    skills = sorted({skill for found in needs for skill in found})
    profile = {skill: np.zeros(9) for skill in skills}
    for found, quality_M in zip(needs, table.quality_QM, strict=True):
        for skill in found:
            profile[skill] += 2.0 * quality_M - 1.0
    seen = router.profiles()
    for skill in skills:
        np.testing.assert_allclose(seen[router.number_[skill]], profile[skill], atol=1e-9)
    total = np.sum(list(profile.values()), axis=0)
    lifted = total - total.min() + 1.0 if total.min() <= 0 else total
    strength = lifted**2 / (lifted**2).sum()
    for query, found in zip(table.queries[:40], needs[:40], strict=True):
        count = sum((profile[skill] for skill in found), np.zeros(9))
        if not found:
            count = np.ones(9)
        elif count.max() > 0:
            count = np.maximum(count, 0.0)
        else:
            count = count - count.min() + 1.0
        np.testing.assert_allclose(router.suitability([query])[0], count * strength, rtol=1e-9, atol=1e-12)


def test_queries_of_the_same_skills_get_the_same_numbers_whatever_else_they_say() -> None:
    rng = np.random.default_rng(0)
    table = worded_table((rng.random((240, 3)) < SKILL[np.arange(240) % 3]).astype(np.float64))
    rare = named(table, [["algebra", "coding", "prose"][i % 3] for i in range(240)])
    said = [
        Query(id=text, text=text, tags={"skills": "Algebra"})
        for text in ("integral prime matrix", "castle winter garden lantern", "loop")
    ]
    for cls in (SkillsRouter, KNNRouter, RidgeRouter):
        quality_QM = cls(embedder=EMBEDDER).fit(rare).estimate(said).quality_QM
        assert (np.ptp(quality_QM, axis=0).max() < 1e-9) == (cls is SkillsRouter)
    router = SkillsRouter(embedder=EMBEDDER, prior=1e-6).fit(rare)
    np.testing.assert_allclose(
        router.estimate(said).quality_QM[0], table.quality_QM[::3].mean(axis=0), atol=1e-6
    )
    assert router.skills(said) == [["algebra"]] * 3


def test_a_named_skill_that_nobody_has_stands_for_the_nearest_one() -> None:
    table = worded_table(SKILL[np.arange(240) % 3])
    router = SkillsRouter(embedder=EMBEDDER).fit(
        named(table, [["integral prime", "loop compile", "castle winter"][i % 3] for i in range(240)])
    )
    asked = [
        Query(id=f"q{text}", text="", tags={"skills": text})
        for text in ("prime", "Compile,  castle", "nonsenseword", "")
    ]
    assert router.skills(asked) == [["integral prime"], ["castle winter", "loop compile"], [], []]
    estimate = router.estimate(asked)
    assert estimate.quality_QM[0].argmax() == 0
    # Of no known skill: everybody at the mean, and recruited by strength alone.
    np.testing.assert_allclose(estimate.quality_QM[2], SKILL.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(router.suitability(asked[2:]).sum(axis=1), 1.0)


def test_an_expert_is_recruited_where_it_was_right_more_often_than_wrong() -> None:
    router = SkillsRouter(embedder=EMBEDDER).fit(worded_table(SKILL[np.arange(240) % 3]))
    weight_QM = router.suitability(worded_queries(30, seed=9))
    assert (weight_QM[0::3].argmax(axis=1) == 0).all()
    assert (weight_QM[1::3].argmax(axis=1) == 1).all()
    # More wrong than right is never recruited beside somebody who is not.
    np.testing.assert_array_equal(weight_QM[0::3, 1], 0.0)
    # On stories nobody is above 0: the least bad one is the likeliest.
    assert (weight_QM[2::3].argmax(axis=1) == 2).all()


def test_a_newcomer_is_profiled_on_the_skills_of_its_probes() -> None:
    table = worded_table(SKILL[np.arange(240) % 3])
    router = SkillsRouter(embedder=EMBEDDER).fit(table)
    twin = replace(table.candidates[1], model="twin")
    probe = dense_table(table.quality_QM[:60, [1]], [query.words for query in table.queries[:60]])
    probe = OutcomeTable(
        queries=probe.queries, candidates=[twin], query_index=probe.query_index,
        candidate_index=probe.candidate_index, quality=probe.quality,
    )  # fmt: skip
    router.add_candidate(twin, probe)
    weight_QM = router.suitability(worded_queries(30, seed=9))
    assert (weight_QM[1::3, 3] > weight_QM[1::3, 0]).all()
    assert router.profiles().shape[1] == 4


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"SkillsRouter\.num_skills"):
        SkillsRouter(num_skills=0)
    with pytest.raises(InputError, match=r"SkillsRouter\.prior"):
        SkillsRouter(prior=0.0)
