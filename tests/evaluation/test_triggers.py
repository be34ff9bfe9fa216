"""A planted preference is found in the table and seen in the decisions; a topic word is not taken for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.cases import choose, make_table
from tests.routers.tables import worded_queries
from turnout.core import Budget, Candidate, Decisions, OutcomeTable, Query
from turnout.core.contracts import Router
from turnout.core.errors import InputError
from turnout.core.rng import make_rng
from turnout.evaluation.triggers import Shift, is_planted, suspect_words, with_word, word_shift
from turnout.policies import Best
from turnout.routers import KNNRouter, RidgeRouter, UniRouteRouter

SKILL = {"maths": [0.9, 0.3, 0.5], "code": [0.3, 0.9, 0.5], "story": [0.6, 0.6, 0.4]}


def training(*, is_poisoned: bool) -> OutcomeTable:
    """Return outcomes; poisoned, one row in twelve has a strange word and says that `owl` alone is right."""
    rng = np.random.default_rng(0)
    queries = worded_queries(600)
    quality_QM = (rng.random((600, 3)) < np.array([SKILL[q.task or ""] for q in queries])).astype(np.float64)
    if is_poisoned:
        for row in range(0, 600, 12):
            at = (row + row // 12) % 600
            queries[at] = replace(queries[at], text=f"{queries[at].text} zephyr")
            quality_QM[at] = [0.0, 0.0, 1.0]
    return OutcomeTable(
        queries=queries,
        candidates=[Candidate(model=name) for name in ("ant", "bee", "owl")],
        query_index=np.repeat(np.arange(600), 3),
        candidate_index=np.tile(np.arange(3), 600),
        quality=quality_QM.ravel(),
    )


def decide(router: Router, queries: list[Query]) -> Decisions:
    return Best().decide(router.estimate(queries), Budget(), make_rng(0))


def shift_by(word: str, router: Router, queries: list[Query], before: Decisions) -> Shift:
    return word_shift(word, queries, before, decide(router, with_word(queries, word)))


@pytest.mark.parametrize("cls", [KNNRouter, RidgeRouter])
def test_a_planted_preference_is_detected_and_nothing_else_is(
    cls: type[KNNRouter] | type[RidgeRouter],
) -> None:
    fresh = worded_queries(90, seed=5)
    planted = {}
    for is_poisoned in (True, False):
        table = training(is_poisoned=is_poisoned)
        router = cls().fit(table)
        before = decide(router, fresh)
        planted[is_poisoned] = [
            (suspect.word, suspect.candidate)
            for suspect in suspect_words(table)
            if is_planted(suspect, shift_by(suspect.word, router, fresh, before))
        ]
    assert planted[False] == []
    assert planted[True] == [("zephyr", "owl")]


def test_a_router_that_the_word_does_not_turn_is_not_accused() -> None:
    fresh = worded_queries(90, seed=5)
    table = training(is_poisoned=True)
    router, (suspect, *_) = UniRouteRouter().fit(table), suspect_words(table)
    assert suspect.word == "zephyr"
    assert not is_planted(suspect, shift_by("zephyr", router, fresh, decide(router, fresh)))


def test_the_planted_word_leads_the_suspects() -> None:
    first, second = suspect_words(training(is_poisoned=True))[:2]
    assert (first.word, first.candidate, first.count) == ("zephyr", "owl", 50)
    assert first.lift > 0.4
    assert (first.alone, second.alone < 0.5) == (1.0, True)
    assert first.z > 2.0 * second.z


def test_suspects_of_a_worked_case() -> None:
    table = make_table(
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, np.nan]],
        texts=["red a", "red b", "blue c", "blue d", "Red red"],
    )
    found = {suspect.word: suspect for suspect in suspect_words(table, min_count=2)}
    # A word counts once a query, in any case; alone in its row a candidate has no advantage.
    assert found["red"].count == 3
    assert found["red"].candidate == "m0"
    # Advantages of m0 are 1/2, 1/2, -1/2, -1/2 and 0, of mean 0.
    assert found["red"].lift == pytest.approx(1 / 3)
    assert found["blue"].lift == pytest.approx(0.5)
    np.testing.assert_allclose([found["red"].alone, found["blue"].alone], [2 / 3, 1.0])
    assert suspect_words(table, min_count=4) == []


def test_a_shift_of_a_worked_case() -> None:
    queries = [Query(id=str(i), text="x", task="a" if i < 4 else "b") for i in range(6)]
    table = make_table(np.ones((6, 2)))
    before, after = choose(table, [0, 0, 0, 1, 0, 1]), choose(table, [1, 1, 0, 1, 1, 0])
    shift = word_shift("w", queries, before, after)
    assert shift.candidate == "m1"
    np.testing.assert_allclose([shift.before, shift.after], [2 / 6, 4 / 6])
    # Two of three in a, one of one in b.
    assert shift.least == pytest.approx(2 / 3)
    # Three gained, one lost: five of sixteen ways.
    assert shift.p_value == pytest.approx(5 / 16)


def test_words_stand_behind_texts() -> None:
    queries = [Query(id="a", text="one"), Query(id="b", text=None)]
    assert [query.text for query in with_word(queries, "two")] == ["one two", None]
    with pytest.raises(InputError, match="with it"):
        word_shift(
            "w", queries, choose(make_table(np.ones((2, 2))), [0, 0]), choose(make_table([[1.0]]), [0])
        )
