from __future__ import annotations

import numpy as np
import pytest

from turnout.evaluation.regret import oracle_share, regret

QUALITY = np.array([[0.2, 1.0], [0.5, 0.4], [np.nan, 0.3]])
COST = np.array([[0.001, 0.003], [0.001, 0.003], [0.001, 0.003]])


def test_regret_by_hand_at_price_zero() -> None:
    assert regret(QUALITY, COST, np.array([0, 0, 1])).tolist() == pytest.approx([0.8, 0.0, 0.0])


def test_regret_by_hand_at_a_price() -> None:
    # At 500 a usd the scores are -.3, -.5 | 0, -1.1 | unknown, -1.2.
    found = regret(QUALITY, COST, np.array([1, 1, 1]), price=500.0)
    assert found.tolist() == pytest.approx([0.2, 1.1, 0.0])


def test_a_refusal_scores_zero_and_an_unobserved_choice_is_unknown() -> None:
    found = regret(QUALITY, COST, np.array([-1, -1, 0]))
    assert found[:2].tolist() == pytest.approx([1.0, 0.5])
    assert np.isnan(found[2])


def test_the_share_of_the_gap_is_undefined_where_there_is_no_gap() -> None:
    one = np.array([0.75, 0.75])
    share = oracle_share(one, single=np.array([0.7, 0.8]), oracle=np.array([0.9, 0.8]))
    assert share[0] == pytest.approx(0.25)
    assert np.isnan(share[1])
