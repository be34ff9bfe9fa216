"""The gate: its targets and their inverse, the price of cost, and one, two or all by confidence."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import dense_table, real_table, worded_queries, worded_table
from turnout.core import OutcomeTable
from turnout.core.errors import InputError
from turnout.features import TextEmbedder
from turnout.routers import KNNRouter, ModeGateRouter, RidgeRouter

EMBEDDER = TextEmbedder(num_features=16).fit(real_table().queries)
GOOD_TM = np.array([[0.9, 0.2, 0.3], [0.5, 0.5, 0.1], [0.2, 0.9, 0.8]])


def modes(num: int = 240, *, cost_M: tuple[float, ...] = (1e-4, 1e-3, 5e-3)) -> OutcomeTable:
    """Return three modes on three kinds of text; the third is dear."""
    truth_QM = GOOD_TM[np.arange(num) % 3]
    return worded_table(truth_QM, cost_usd=np.tile(cost_M, (num, 1)))


def test_the_gate_is_the_softmax_of_quality_and_its_inverse_is_the_estimate() -> None:
    table = modes()
    router = ModeGateRouter(cost_weight=0.0).fit(table)
    asked = worded_queries(30, seed=4)
    truth_QM = GOOD_TM[np.arange(30) % 3]
    target_QM = np.exp(truth_QM / 0.5)
    target_QM /= target_QM.sum(axis=1, keepdims=True)
    found_QM = router.gate(asked)
    np.testing.assert_allclose(found_QM, target_QM, atol=0.1)
    quality_QM = router.estimate(asked).quality_QM
    log_QM = np.log(found_QM)
    # Exactly: differences of quality are the temperature times differences of log shares.
    inside = (quality_QM > 0.0) & (quality_QM < 1.0)
    gap_Q = 0.5 * (log_QM[:, 0] - log_QM[:, 1])
    both = inside[:, :2].all(axis=1)
    assert both.sum() > 20
    np.testing.assert_allclose((quality_QM[:, 0] - quality_QM[:, 1])[both], gap_Q[both], atol=1e-9)


def test_a_weight_of_cost_moves_the_gate_and_not_the_estimate() -> None:
    table, asked = modes(), worded_queries(30, seed=4)
    free, priced = (ModeGateRouter(cost_weight=weight).fit(table) for weight in (0.0, 0.5))
    np.testing.assert_array_equal(free.estimate(asked).quality_QM, priced.estimate(asked).quality_QM)
    before_QM, after_QM = free.gate(asked), priced.gate(asked)
    assert (after_QM[:, 2] < before_QM[:, 2] - 0.05).mean() > 0.9
    np.testing.assert_allclose(after_QM.sum(axis=1), 1.0)


def test_confidence_calls_one_two_or_all() -> None:
    router = ModeGateRouter(temperature=0.2, cost_weight=0.0).fit(modes())
    asked = worded_queries(30, seed=4)
    plans, share_QM = router.plan(asked), router.gate(asked)
    for plan, share_M in zip(plans, share_QM, strict=True):
        first, second, _ = np.sort(share_M)[::-1]
        expected = 3 if first < 0.35 else 1 if first - second >= 0.1 else 2
        assert len(plan) == expected
        assert list(plan) == np.argsort(-share_M)[:expected].tolist()
    # Clear kinds of text get one mode; where two are equally good they check each other.
    assert [len(plan) for plan in plans[0::3]] == [1] * 10
    assert np.mean([len(plan) == 2 for plan in plans[1::3]]) > 0.5
    assert {len(plan) for plan in router.plan(asked, confidence=1.0)} == {3}


def test_only_what_differs_within_a_row_is_learned_by_the_gate() -> None:
    rng = np.random.default_rng(0)
    quality_QM, level_Q1 = rng.uniform(0.3, 0.6, (120, 3)), rng.uniform(-0.3, 0.4, (120, 1))
    asked = worded_queries(12, seed=7)

    def shares(values_QM: np.ndarray) -> np.ndarray:
        return ModeGateRouter(cost_weight=0.0).fit(worded_table(values_QM)).gate(asked)

    np.testing.assert_allclose(shares(quality_QM), shares(quality_QM + level_Q1), atol=1e-6)

    def gaps(values_QM: np.ndarray) -> np.ndarray:
        found_QM = KNNRouter().fit(worded_table(values_QM)).estimate(asked).quality_QM
        return np.asarray(found_QM - found_QM.mean(axis=1, keepdims=True))

    assert np.abs(gaps(quality_QM) - gaps(quality_QM + level_Q1)).max() > 1e-3
    found_QM = RidgeRouter().fit(modes()).estimate(asked).quality_QM
    mine_QM = ModeGateRouter().fit(modes()).estimate(asked).quality_QM
    assert np.abs(found_QM - mine_QM).max() > 1e-3


def test_a_newcomer_takes_its_place_in_the_gate() -> None:
    truth_QM = GOOD_TM[np.arange(240) % 3]
    table = dense_table(truth_QM, [q.words for q in worded_queries(240)], cost_usd=np.full((240, 3), 1e-3))
    router = ModeGateRouter().fit(table.select(candidates=["m0", "m1"]))
    router.add_candidate(table.candidates[2], table)
    asked = worded_queries(30, seed=4)
    whole_QM, late_QM = ModeGateRouter().fit(table).gate(asked), router.gate(asked)
    np.testing.assert_allclose(late_QM.sum(axis=1), 1.0)
    np.testing.assert_allclose(late_QM, whole_QM, atol=0.1)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"ModeGateRouter\.temperature"):
        ModeGateRouter(temperature=0.0)
    with pytest.raises(InputError, match="confidence"):
        ModeGateRouter(embedder=EMBEDDER).fit(real_table()).plan([], confidence=2.0)


def test_the_gate_minimises_the_published_loss() -> None:
    """`KL(softmax(quality / t) || p) + w E_p[cost]` is least where `p_m = target_m / (nu + w cost_m)`."""
    quality_M, usd_M = np.array([0.8, 0.6, 0.3]), np.array([4.0, 1.0, 1.0])
    num = 60
    table = dense_table(
        np.tile(quality_M, (num, 1)), ["the same words"] * num, cost_usd=np.tile(usd_M, (num, 1))
    )
    router = ModeGateRouter(temperature=0.5, cost_weight=0.4).fit(table)
    target_M = np.exp(quality_M / 0.5) / np.exp(quality_M / 0.5).sum()
    price_M = 0.4 * usd_M / usd_M.mean()
    low, high = -price_M.min() + 1e-9, 2.0
    nu = 0.0
    for _ in range(100):
        nu = (low + high) / 2
        low, high = (nu, high) if (target_M / (nu + price_M)).sum() > 1.0 else (low, nu)
    assert router.gate(table.queries[:1])[0] == pytest.approx(target_M / (nu + price_M), abs=0.01)
