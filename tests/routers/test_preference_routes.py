"""Routes in plain language: the description decides, whatever the outcomes say; the rest is `other`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import worded_queries, worded_table
from turnout.core import OutcomeTable, Query
from turnout.core.errors import InputError
from turnout.routers import BestSingleRouter, KNNRouter, PreferenceRoutesRouter, RidgeRouter

ROUTES = (
    ("proofs", "a proof, an integral or a matrix", "m0"),
    ("programs", "compile a class, or a string function in a loop", "m1"),
    ("tales", "a castle in winter, a garden by the river", "m2"),
)
GOOD_M = np.array([0.3, 0.9, 0.5])


def table() -> OutcomeTable:
    rng = np.random.default_rng(0)
    return worded_table((rng.random((240, 3)) < GOOD_M).astype(float), cost_usd=np.full((240, 3), 1e-3))


def test_a_text_goes_where_its_description_says_whatever_was_recorded() -> None:
    router = PreferenceRoutesRouter(routes=ROUTES).fit(table())
    asked = worded_queries(90, seed=3)
    expected = [["proofs", "programs", "tales"][i % 3] for i in range(90)]
    matched = router.match(asked)
    assert np.mean([one == other for one, other in zip(matched, expected, strict=True)]) > 0.95
    choice_Q = router.estimate(asked).quality_QM.argmax(axis=1)
    places = {"proofs": 0, "programs": 1, "tales": 2}
    assert choice_Q.tolist() == [places.get(name, 1) for name in matched]
    # Outcomes alone send every text to the second candidate.
    for other in (KNNRouter(), RidgeRouter()):
        assert (other.fit(table()).estimate(asked).quality_QM.argmax(axis=1) == 1).mean() > 0.9


def test_the_chosen_keeps_its_average_and_nobody_is_raised() -> None:
    router = PreferenceRoutesRouter(routes=ROUTES).fit(table())
    plain_M = BestSingleRouter().fit(table()).estimate([Query(id="a", text="x")]).quality_QM[0]
    asked = [Query(id="a", text="integral matrix proof"), Query(id="b", text="")]
    quality_QM = router.estimate(asked).quality_QM
    assert router.match(asked) == ["proofs", "other"]
    np.testing.assert_allclose(quality_QM[0, 0], plain_M[0])
    assert (quality_QM[0] <= plain_M + 1e-12).all()
    np.testing.assert_allclose(quality_QM[1], plain_M)


def test_a_route_waits_for_its_candidate() -> None:
    data = table()
    router = PreferenceRoutesRouter(routes=ROUTES).fit(data.select(candidates=["m0", "m1"]))
    asked = worded_queries(3, seed=3)[2:]
    assert router.match(asked) == ["tales"]
    assert router.estimate(asked).quality_QM.argmax(axis=1).tolist() == [1]
    router.add_candidate(data.candidates[2], data)
    assert router.estimate(asked).quality_QM.argmax(axis=1).tolist() == [2]


def test_a_higher_floor_leaves_more_to_other() -> None:
    asked = worded_queries(60, seed=3)
    share = [
        np.mean(
            [
                name == "other"
                for name in PreferenceRoutesRouter(routes=ROUTES, floor=f).fit(table()).match(asked)
            ]
        )
        for f in (0.0, 0.6, 1.0)
    ]
    assert share[0] <= share[1] <= share[2]
    assert share[2] == 1.0


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="names once each"):
        PreferenceRoutesRouter(routes=(ROUTES[0], ROUTES[0]))
    with pytest.raises(InputError, match="names once each"):
        PreferenceRoutesRouter(routes=(("other", "anything", "m0"),))
    with pytest.raises(InputError, match=r"PreferenceRoutesRouter\.floor"):
        PreferenceRoutesRouter(floor=2.0)
