"""A batch of decisions is consistent, or it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from turnout.core.candidate import Candidate
from turnout.core.decision import NONE, Decisions, decisions_for
from turnout.core.errors import InputError

POOL = (Candidate(model="owl"), Candidate(model="ant"))


def batch() -> Decisions:
    return Decisions(
        candidates=POOL,
        choice_Q=np.array([1, NONE, 0]),
        ranked_QM=np.array([[1, 0], [NONE, NONE], [0, NONE]]),
        propensity_Q=np.array([0.5, 1.0, 1.0]),
        reason_Q=("cheap", "nobody", "good"),
        quality_Q=np.array([0.5, np.nan, 0.75]),
        cost_usd_Q=np.array([0.01, np.nan, np.nan]),
        price=2.0,
        fingerprint="abc",
    )


def test_one_decision_holds_what_is_logged() -> None:
    first, nobody, last = (batch()[row] for row in range(3))
    assert first.candidate == POOL[1]
    assert first.ranked == (POOL[1], POOL[0])
    assert (first.propensity, first.reason, first.price, first.fingerprint) == (0.5, "cheap", 2.0, "abc")
    assert (first.expected_quality, first.expected_cost_usd) == (0.5, 0.01)
    assert nobody.candidate is None
    assert nobody.ranked == ()
    assert last.ranked == (POOL[0],)


def test_a_batch_has_a_length_and_names() -> None:
    assert len(batch()) == 3
    assert batch().names_Q == ("ant", None, "owl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choice_Q": np.array([1, -2, 0])}, "Decisions.choice_Q; allowed: -1 to 1; got: -2"),
        ({"choice_Q": np.array([1, 2, 0])}, "Decisions.choice_Q; allowed: -1 to 1; got: 2"),
        (
            {"choice_Q": np.array([[1], [0], [0]])},
            r"Decisions.choice_Q; allowed: \(Q\) = \(3,\); got: \(3, 1\)",
        ),
        (
            {"ranked_QM": np.zeros((3, 3), np.int64)},
            r"ranked_QM; allowed: \(Q, M\) = \(3, 2\); got: \(3, 3\)",
        ),
        ({"propensity_Q": np.ones(2)}, r"Decisions.propensity_Q; allowed: \(Q\) = \(3,\); got: \(2,\)"),
        ({"quality_Q": np.ones(2)}, r"Decisions.quality_Q; allowed"),
        ({"cost_usd_Q": np.ones(2)}, r"Decisions.cost_usd_Q; allowed"),
        ({"propensity_Q": np.array([1.0, 0.0, 1.0])}, r"propensity_Q; allowed: \(0, 1\]; got: 0.0"),
        ({"propensity_Q": np.array([1.0, 1.5, 1.0])}, r"propensity_Q; allowed: \(0, 1\]; got: 1.5"),
        ({"propensity_Q": np.array([1.0, np.nan, 1.0])}, r"propensity_Q; allowed: \(0, 1\]; got: nan"),
        ({"reason_Q": ("one",)}, "Decisions.reason_Q; allowed: 3 phrases; got: 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(batch(), **changes)


def test_bare_choices_become_deterministic_decisions() -> None:
    decisions = decisions_for(POOL, np.array([0, NONE, 1]), reason="oracle", price=3.0)
    assert decisions.names_Q == ("owl", None, "ant")
    np.testing.assert_array_equal(decisions.ranked_QM, [[0, -1], [-1, -1], [1, -1]])
    assert decisions[0].propensity == 1.0
    assert decisions[0].reason == "oracle"
    assert np.isnan(decisions.quality_Q).all()
    assert decisions.price == 3.0


def test_no_queries_and_no_candidates_are_a_batch_too() -> None:
    assert len(decisions_for((), np.array([], np.int64))) == 0
    assert len(decisions_for(POOL, np.array([], np.int64))) == 0


def test_a_ranking_may_stop_after_its_first_places() -> None:
    short = replace(batch(), ranked_QM=np.array([[1], [NONE], [0]]))
    assert short[0].ranked == (POOL[1],)
    assert short[1].ranked == ()


def test_a_deployment_signs_a_copy() -> None:
    first = batch()
    signed = first.signed("def")
    assert (signed.fingerprint, first.fingerprint) == ("def", "abc")
    assert signed.reason_Q == first.reason_Q
    assert signed[0].candidate == first[0].candidate
    assert signed.price == first.price
    assert first.signed("def", reason="guard").reason_Q == ("guard",) * 3
