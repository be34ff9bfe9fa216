"""Composition of experts: the expert of the category stands first, and the budget holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.routers.tables import WORDS, dense_table, worded_queries, worded_table
from turnout.core import Candidate, OutcomeTable
from turnout.core.errors import InputError
from turnout.routers import CompositionRouter

RNG = np.random.default_rng(0)
TASK_Q = np.arange(90) % 3
# One expert per task, a strong one for everything, and a small one that is nobody's best.
QUALITY_TM = np.array([[0.9, 0.4, 0.3, 0.85, 0.5], [0.3, 0.9, 0.4, 0.80, 0.5], [0.4, 0.3, 0.9, 0.7, 0.5]])
USD_M = np.array([0.3, 0.2, 0.1, 1.0, 0.01])
QUALITY_QM = np.clip(QUALITY_TM[TASK_Q] + RNG.normal(0, 0.05, (90, 5)), 0, 1)
COST_QM = USD_M * RNG.uniform(0.9, 1.1, (90, 5))
SIZES = (7.0, 8.0, 9.0, 70.0, 1.0)


def table() -> OutcomeTable:
    plain = worded_table(QUALITY_QM, cost_usd=COST_QM)
    sized = [
        replace(candidate, descriptors={"params_b": size})
        for candidate, size in zip(plain.candidates, SIZES, strict=True)
    ]
    return OutcomeTable(
        queries=plain.queries, candidates=sized, query_index=plain.query_index,
        candidate_index=plain.candidate_index, quality=plain.quality, cost_usd=plain.cost_usd,
    )  # fmt: skip


def spent_and_won(experts: list[int]) -> tuple[float, float]:
    """Return the mean recorded cost and quality of the training queries under a map by hand."""
    chosen_Q = np.array(experts)[TASK_Q]
    return float(COST_QM[np.arange(90), chosen_Q].mean()), float(QUALITY_QM[np.arange(90), chosen_Q].mean())


@pytest.mark.parametrize("budget_usd", [0.02, 0.1, 0.15, 0.2, 0.5, 1.2])
def test_the_map_is_the_best_that_the_money_buys(budget_usd: float) -> None:
    router = CompositionRouter(budget_usd=budget_usd, prior=0.0).fit(table())
    names = [f"m{i}" for i in range(5)]
    found = [names.index(router.map()[task]) for task in WORDS]
    usd, quality = spent_and_won(found)
    # Costs are recorded ones of training; the router's own numbers are their means per category.
    assert usd <= budget_usd * (1 + 1e-6)
    maps = [spent_and_won(list(one)) for one in product(range(5), repeat=3)]
    best = max(won for paid, won in maps if paid <= budget_usd)
    assert quality == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("budget_b", "num_experts"), [(1.0, 1), (7.0, 1), (16.0, 3), (24.0, 3), (95.0, 3)])
def test_the_distinct_experts_fit_the_parameters(budget_b: float, num_experts: int) -> None:
    router = CompositionRouter(budget_params_b=budget_b, prior=0.0).fit(table())
    experts = set(router.map().values())
    assert sum(SIZES[int(name[1:])] for name in experts) <= budget_b
    assert len(experts) == num_experts


def test_the_expert_of_the_category_is_first_whoever_is_better_there() -> None:
    router = CompositionRouter(budget_usd=0.12, prior=0.0).fit(table())
    fresh = worded_queries(30, seed=9, has_task=False)
    estimate = router.estimate(fresh)
    first = [estimate.names[i] for i in estimate.quality_QM.argmax(axis=1)]
    assert first == [router.map()[list(WORDS)[i % 3]] for i in range(30)]
    # The budget is felt: without it the experts of the tasks stand first.
    free = CompositionRouter(prior=0.0).fit(table())
    assert list(free.map().values()) != list(router.map().values())
    assert free.map() == {"maths": "m0", "code": "m1", "story": "m2"}


def test_a_newcomer_is_averaged_and_does_not_enter_the_map() -> None:
    wide = dense_table(
        np.column_stack([QUALITY_QM, np.full(90, 0.95)]),
        [query.words for query in table().queries],
        tasks=table().tasks,
    )
    router = CompositionRouter(prior=0.0).fit(table())
    before = router.map()
    router.add_candidate(Candidate(model="m5"), wide)
    assert router.map() == before
    estimate = router.estimate(worded_queries(9, seed=3, has_task=False))
    assert (estimate.quality_QM.argmax(axis=1) < 5).all()


def test_budgets_are_one_at_a_time_and_must_be_reachable() -> None:
    with pytest.raises(InputError, match="got: 'both'"):
        CompositionRouter(budget_usd=1.0, budget_params_b=1.0)
    with pytest.raises(InputError, match="at least"):
        CompositionRouter(budget_usd=0.001).fit(table())
    with pytest.raises(InputError, match="smallest expert"):
        CompositionRouter(budget_params_b=0.5).fit(table())


def test_a_budget_of_parameters_that_meets_no_size_is_refused() -> None:
    with pytest.raises(InputError, match="budget_params_b of 10; allowed: candidates of which one"):
        CompositionRouter(budget_params_b=10.0).fit(worded_table(QUALITY_QM))


def test_of_equally_good_experts_the_cheaper_is_put_first() -> None:
    num = 60
    cost_usd = np.tile([4e-3, 1e-3, 2e-3], (num, 1))
    table = dense_table(np.full((num, 3), 0.3), [f"text {i}" for i in range(num)], cost_usd=cost_usd)
    assert set(CompositionRouter().fit(table).map().values()) == {"m1"}
