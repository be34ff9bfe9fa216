from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnout.core import Goal, InputError, OutcomeTable
from turnout.core.artifact import load, save
from turnout.datasets import synthetic
from turnout.policies import Deployment
from turnout.training import Shares, train, train_and_test

WORLD = synthetic(num_queries=1500, seed=3)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return train(WORLD.table.select(split="train"), Goal(usd_per_quality=0.02), router="knn")


def shuffled(table: OutcomeTable, seed: int) -> OutcomeTable:
    """Give every query another query's outcomes: nothing is left to learn but the means."""
    order = np.random.default_rng(seed).permutation(len(table.queries))
    return OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=order[table.query_index],
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=table.cost_usd,
        splits=table.splits,
    )


def worth(deployment: Deployment, price: float, goal: Goal | None = None) -> tuple[float, float]:
    test = WORLD.table.select(split="test")
    choice_Q = deployment.decide(test.queries, goal=goal).choice_Q
    quality, usd = WORLD.worth_of(choice_Q, split="test")
    return quality - price * usd, WORLD.optimum(price, split="test").value


def best_single_worth(price: float) -> float:
    num_queries = len(WORLD.table.select(split="test").queries)
    values = []
    for column in range(len(WORLD.table.candidates)):
        quality, usd = WORLD.worth_of(np.full(num_queries, column), split="test")
        values.append(quality - price * usd)
    return max(values)


def test_on_a_world_with_signal_it_lies_between_best_single_and_optimum(deployment: Deployment) -> None:
    mine, optimum = worth(deployment, 50.0)
    single = best_single_worth(50.0)
    assert deployment.plan().is_open
    assert single + 0.2 * (optimum - single) < mine <= optimum + 1e-9


def test_without_signal_the_guard_steps_aside() -> None:
    blind = train(shuffled(WORLD.table.select(split="train"), 1), Goal(), router="knn", seed=1)
    assert not blind.plan().is_open
    decisions = blind.decide(WORLD.table.queries[:50])
    assert len(set(decisions.names_Q)) == 1
    assert set(decisions.reason_Q) == {"guard: not shown to beat the best single model"}


def test_a_quality_floor_is_kept_on_held_out_queries_and_saves_money() -> None:
    test = WORLD.table.select(split="test")
    kept, costs = [], []
    for seed in range(4):
        floor = train(WORLD.table.select(split="train"), Goal(quality_floor=0.95), router="ridge", seed=seed)
        choice_Q = floor.decide(test.queries).choice_Q
        quality, usd = WORLD.worth_of(choice_Q, split="test")
        best_M = WORLD.worth_of(
            np.full(len(test.queries), test.quality_QM.mean(axis=0).argmax()), split="test"
        )
        kept.append(quality >= 0.95 * best_M[0])
        costs.append(usd / best_M[1])
    assert sum(kept) >= 3
    assert max(costs) < 0.9


def test_a_spend_cap_is_kept_in_the_true_world(deployment: Deployment) -> None:
    cap = 1000 * float(np.median(WORLD.cost_usd_QM.mean(axis=0)))
    test = WORLD.table.select(split="test")
    choice_Q = deployment.decide(test.queries, goal=Goal(usd_per_1k=cap)).choice_Q
    _, usd = WORLD.worth_of(choice_Q, split="test")
    assert usd * 1000 <= cap


def test_another_goal_at_request_time_moves_the_choice(deployment: Deployment) -> None:
    queries = WORLD.table.select(split="test").queries
    best = deployment.decide(queries, goal=Goal())
    cheap = deployment.decide(queries, goal=Goal(usd_per_quality=1e-9))
    assert cheap.cost_usd_Q.mean() < best.cost_usd_Q.mean()


def test_selection_reports_every_trial_and_takes_the_best() -> None:
    chosen = train(WORLD.table.select(split="train"), Goal(quality_floor=0.95), router=("uniform", "ridge"))
    trials = chosen.certificate["trials"]
    assert isinstance(trials, list)
    assert [trial["name"] for trial in trials] == ["uniform", "ridge"]
    assert chosen.certificate["router"] == "ridge"


def test_the_certificate_is_json_and_the_artifact_decides_the_same(
    deployment: Deployment, tmp_path: Path
) -> None:
    json.dumps(deployment.certificate, allow_nan=False)
    copy = load(save(deployment, tmp_path / "deployment"))
    assert isinstance(copy, Deployment)
    assert copy.fingerprint == deployment.fingerprint
    queries = WORLD.table.queries[:40]
    left, right = deployment.decide(queries), copy.decide(queries)
    assert left.names_Q == right.names_Q
    assert copy.plan(Goal(quality_floor=0.9)) == deployment.plan(Goal(quality_floor=0.9))


def test_the_same_seed_gives_the_same_deployment(deployment: Deployment) -> None:
    again = train(WORLD.table.select(split="train"), Goal(usd_per_quality=0.02), router="knn")
    other = train(WORLD.table.select(split="train"), Goal(usd_per_quality=0.02), router="knn", seed=9)
    assert again.fingerprint == deployment.fingerprint
    assert other.fingerprint != deployment.fingerprint


def test_half_the_cells_missing_is_no_obstacle() -> None:
    sparse = synthetic(num_queries=1200, fill=0.5, seed=5)
    deployment = train(sparse.table.select(split="train"), Goal(quality_floor=0.9))
    decisions = deployment.decide(sparse.table.select(split="test").queries)
    assert (decisions.choice_Q >= 0).all()


@pytest.mark.parametrize("num_candidates", [1, 2, 40])
def test_pools_of_every_size_train(num_candidates: int) -> None:
    world = synthetic(num_queries=300, num_candidates=num_candidates, seed=2)
    deployment = train(world.table.select(split="train"), Goal(quality_floor=0.9), router="knn")
    assert len(deployment.candidates) == num_candidates


@pytest.mark.parametrize(("train", "test"), [("test", None), (None, "train"), ("train", "train")])
def test_one_split_is_not_both_parts(train: str | None, test: str | None) -> None:
    with pytest.raises(InputError, match=r"allowed: two different splits; got: '.*'; name another"):
        train_and_test(WORLD.table, train=train, test=test)


def test_a_goal_of_money_without_costs_is_refused() -> None:
    listed = WORLD.table.with_costs(np.full(WORLD.table.num_rows, np.nan))
    assert (
        train(listed, Goal(usd_per_1k=1e6), router="best_single").plan().is_kept
    )  # by tokens and price cards
    table = OutcomeTable(
        queries=listed.queries,
        candidates=[candidate.with_price_card(None) for candidate in listed.candidates],
        query_index=listed.query_index,
        candidate_index=listed.candidate_index,
        quality=listed.quality,
        splits=listed.splits,
    )
    with pytest.raises(
        InputError, match=r"speaks of money, and the table records no cost; record cost_usd, or"
    ):
        train(table, Goal(usd_per_1k=1.0))
    assert train(table.select(split="train"), Goal(), router="knn").decide(table.queries[:2])


def test_a_tiny_table_is_refused_or_trained_but_never_a_traceback_of_ours() -> None:
    for num_queries in (1, 2, 5, 12):
        table = synthetic(num_queries=num_queries, test_share=0.0, seed=1).table
        try:
            deployment = train(table, Goal(), router="knn")
        except InputError as error:
            assert "; " in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert len(deployment.decide(table.queries)) == num_queries


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(InputError, match=r"Shares; allowed: three numbers that sum to 1; got: 0\.9"):
        Shares(fit=0.5, calibrate=0.2, guard=0.2)


def test_named_splits_are_used_and_others_are_cut_without_overlap() -> None:
    train_part, test_part = train_and_test(WORLD.table)
    assert {*train_part.splits} == {"train"}
    assert {*test_part.splits} == {"test"}
    bare = WORLD.table.with_splits([None] * len(WORLD.table.queries))
    train_part, test_part = train_and_test(bare, seed=1)
    assert not {q.id for q in train_part.queries} & {q.id for q in test_part.queries}
    assert len(test_part.queries) == pytest.approx(0.3 * len(bare.queries), abs=15)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("reason18", Goal()), {}, r"train: table; .*OutcomeTable; got: 'reason18'; read it with"),
        ((WORLD.table, 0.95), {}, r"train: goal; .*Goal; got: 0.95; write for example Goal"),
        ((WORLD.table,), {"seed": -1}, r"train: seed; allowed: a whole number of at least 0; got: -1"),
        ((WORLD.table,), {"policy": "best"}, r"train: policy; .*Policy; got: 'best'; write for example Best"),
    ],
)
def test_a_likely_slip_is_told_what_to_write(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(*arguments, **options)
