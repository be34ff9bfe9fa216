from __future__ import annotations

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.duo import Oracle, Problem, best_fixed, exhaustive
from turnout.nn.regret import format_table, interval_of, regret, regret_table
from turnout.nn.testtime.context import next_token_loss
from turnout.nn.tiny import tiny_llama


def depth_problem(items: int = 40, layers: int = 4) -> Problem:
    """Return a depth problem (skip, execute, repeat): items differ in the layer that matters to them."""
    rng = np.random.default_rng(0)
    part = rng.normal(size=(items, layers, 3))
    return Problem(
        loss=lambda item_P, choice_PL: part[item_P[:, None], np.arange(layers), choice_PL].sum(1),
        num_items=items,
        num_layers=layers,
        cost_A=(0.0, 1.0, 2.0),
    )


def test_the_oracle_itself_has_no_regret_and_nothing_has_less() -> None:
    problem = depth_problem()
    oracle = exhaustive(problem, budgets=range(9))
    rng = np.random.default_rng(1)
    decisions = {
        "oracle": oracle.choice_KQL[4],
        "best fixed": best_fixed(problem, budgets=[4])[0],
        "random": rng.integers(0, 3, size=(40, 4)),
        "all execute": np.ones(4, dtype=np.int64),
    }
    lines = {line.name: line for line in regret_table(problem, decisions, oracle=oracle, rng=rng)}
    assert lines["oracle"].regret.value == pytest.approx(0.0, abs=1e-12)
    for line in lines.values():
        assert line.regret.low <= line.regret.value <= line.regret.high
        assert line.regret.value >= 0
        assert line.loss.value - line.oracle_loss == pytest.approx(line.regret.value)
    assert lines["best fixed"].regret.low > 0
    assert lines["all execute"].budget == 4
    assert "all execute" in format_table(list(lines.values()))


def test_a_depth_router_is_judged_by_its_own_decisions_and_the_models_losses() -> None:
    model = tiny_llama(vocab_size=24, width=16, layers=3)
    routed = RoutedDepth(model=model, router=DrLLMRouter(layers=3, width=16, seed=1))
    ids_QT = torch.randint(4, 24, (6, 10), generator=torch.Generator().manual_seed(0))

    def loss(item_P, choice_PL):
        with torch.no_grad(), routed.forced(torch.from_numpy(choice_PL)):
            return next_token_loss(model, ids_QT[item_P], torch.ones_like(ids_QT[item_P])).double().numpy()

    problem = Problem(loss=loss, num_items=6, num_layers=3, cost_A=(0.0, 1.0, 2.0))
    oracle = exhaustive(problem, budgets=range(7))
    with torch.no_grad():
        own_Q = next_token_loss(model, ids_QT, torch.ones_like(ids_QT)).double().numpy()
    counts_QL = routed.counts_BL.numpy()
    [line] = regret_table(problem, {"router": counts_QL}, oracle=oracle, rng=np.random.default_rng(0))
    assert line.budget == counts_QL.sum(axis=1).mean()
    assert line.loss.value == pytest.approx(own_Q.mean(), abs=1e-5)
    assert line.regret.value > 0


def test_each_item_is_compared_at_what_was_spent_on_it() -> None:
    oracle = Oracle(
        budget_K=np.array([0.0, 2.0]),
        loss_KQ=np.array([[4.0, 4.0], [2.0, 0.0]]),
        choice_KQL=np.zeros((2, 2, 2), dtype=np.int64),
    )
    found = regret(
        "router", np.array([4.0, 4.0]), np.array([0.0, 1.0]), oracle=oracle, rng=np.random.default_rng(0)
    )
    assert found.oracle_loss == 3.0
    assert found.regret.value == 1.0
    assert found.budget == 0.5


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        found = interval_of(rng.normal(size=40), rng=rng, num_resamples=300)
        hits += found.low <= 0 <= found.high
    assert 86 <= hits <= 99


def test_items_of_one_sequence_stand_or_fall_together() -> None:
    rng = np.random.default_rng(0)
    value_Q = np.repeat(rng.normal(size=10), 20)
    groups_Q = np.repeat(np.arange(10) * 7, 20)
    alone = interval_of(value_Q, rng=np.random.default_rng(0))
    together = interval_of(value_Q, rng=np.random.default_rng(0), groups_Q=groups_Q)
    assert together.high - together.low > 3 * (alone.high - alone.low)
    per_group = interval_of(value_Q[::20], rng=np.random.default_rng(0))
    assert (together.low, together.high) == pytest.approx((per_group.low, per_group.high))


def test_what_does_not_fit_is_refused() -> None:
    problem = depth_problem(items=3)
    oracle = exhaustive(problem, budgets=[2, 8])
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="regret_table: 'short'"):
        regret_table(problem, {"short": np.ones(3, dtype=np.int64)}, oracle=oracle, rng=rng)
    with pytest.raises(InputError, match="a choice; allowed: 0 to 2"):
        regret_table(problem, {"deep": np.full(4, 3)}, oracle=oracle, rng=rng)
    with pytest.raises(InputError, match="regret: loss_Q"):
        regret("x", np.zeros(2), np.zeros(3), oracle=oracle, rng=rng)
    with pytest.raises(InputError, match="finite"):
        regret("x", np.full(3, np.nan), np.full(3, 2.0), oracle=oracle, rng=rng)
    # A router that spends less than the oracle's first budget has no equal to be compared with.
    with pytest.raises(InputError, match="oracle: budget"):
        regret("x", np.zeros(3), np.zeros(3), oracle=oracle, rng=rng)
