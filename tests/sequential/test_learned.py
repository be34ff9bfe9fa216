"""The learned sequencer finds what there is to find, and says how probable its choices were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from turnout.core import InputError, NotFittedError, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.core.contracts import Embedder
from turnout.datasets import load as load_table
from turnout.features import TextEmbedder
from turnout.routers import BestSingleRouter
from turnout.sequential import (
    Bounds,
    LearnedSequencer,
    LogisticScorer,
    Outcome,
    ReplayEnvironment,
    Settings,
    SyntheticTask,
    audit,
    optimal_value,
    run,
)
from turnout.sequential.episodes import single_calls
from turnout.sequential.reinforce import gradient
from turnout.sequential.router_r1.reward import RewardR1, episode_of
from turnout.sequential.softmax import log_probabilities, sum_gradient
from turnout.sequential.trace import Chosen, Trace

TASK = SyntheticTask(
    success=((0.95, 0.98), (0.05, 0.9)), usd=(1 / 64, 1 / 4), rounds=2, hint=((0.9, 0.1), (0.1, 0.9))
)
QUICK = Settings(epochs=4, tries=4, step=0.1)


class HintEmbedder(Embedder):
    """The hint as a one-hot vector."""

    def fit(self, queries: Sequence[Query]) -> HintEmbedder:
        """Return self."""
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        """Return one row per query."""
        return np.eye(2, dtype=np.float32)[[int(query.tags["hint"]) for query in queries]]


def policy(price: float, **options: object) -> LearnedSequencer:
    """Return a policy for the synthetic task."""
    return LearnedSequencer(
        price=price,
        embedder=HintEmbedder(),
        signals=("signal",),
        max_samples=2,
        **options,  # type: ignore[arg-type]
    )


def shipped() -> OutcomeTable:
    """Return a small part of a shipped table."""
    table = load_table("reason18")
    return table.select(candidates=table.names[:4], ids=[query.id for query in table.queries[::20]])


def test_it_comes_close_to_the_optimum_and_learns_on_the_way() -> None:
    price = 0.8
    train, test = TASK.environment(300, seed=0), TASK.environment(1500, seed=1)
    learned = policy(price, is_greedy=True).fit(train, train.queries, bounds=Bounds(calls=2), settings=QUICK)
    assert learned.history_[-1] > learned.history_[0] + 0.1
    outcomes = [run(test, learned, query, bounds=Bounds(calls=2)) for query in test.queries]
    value = float(np.mean([outcome.quality - price * outcome.usd for outcome in outcomes]))
    assert value > 0.93 * optimal_value(TASK, price=price)
    assert {outcome.ended.how for outcome in outcomes} == {"stop"}


def test_propensities_are_the_frequencies() -> None:
    world = TASK.environment(1, seed=0)
    learned = policy(0.5).fit(world, world.queries, settings=Settings(epochs=0))
    learned.weights_.weights_AD[:] = np.random.default_rng(0).normal(size=learned.weights_.weights_AD.shape)
    num, found, stated = 1500, Counter[str](), {}
    for seed in range(num):
        outcome = run(world, learned, world.queries[0], seed=seed)
        first = outcome.trace.events[1]
        assert isinstance(first, Chosen)
        name = outcome.trace.observed[0].call.candidate
        found[name] += 1
        stated[name] = first.choice.propensity
        assert audit(outcome.trace, learned) is None
    assert sum(stated.values()) == pytest.approx(1.0)
    for name, chance in stated.items():
        assert abs(found[name] / num - chance) < 4 * 0.5 / num**0.5


def test_greedy_takes_the_most_probable_and_is_sure() -> None:
    world = TASK.environment(20, seed=0)
    greedy = policy(0.5, is_greedy=True).fit(world, world.queries, settings=Settings(epochs=0))
    for query in world.queries:
        runs = [run(world, greedy, query, seed=seed).trace for seed in (1, 2)]
        assert repr(runs[0].events[1:]) == repr(runs[1].events[1:])
        assert {e.choice.propensity for e in runs[0].events if isinstance(e, Chosen)} == {1.0}


def test_the_same_seed_gives_the_same_weights() -> None:
    world = TASK.environment(60, seed=0)
    settings = replace(QUICK, epochs=2)
    fits = [policy(0.5).fit(world, world.queries, settings=settings, seed=s).weights_ for s in (1, 1, 2)]
    assert (fits[0].weights_AD == fits[1].weights_AD).all()
    assert (fits[0].weights_AD != fits[2].weights_AD).any()


def test_the_gradient_estimate_has_no_bias() -> None:
    """In one query with one step the mean of many estimates is the exact gradient of the expected reward."""
    world = TASK.environment(1, seed=0)
    learned = policy(0.0).fit(world, world.queries, settings=Settings(epochs=0))
    outcome = run(world, learned, world.queries[0])
    situation = learned.situation(type(outcome.trace)(outcome.trace.started))
    reward_A = np.array([0.2, 1.0, 0.0])
    pi_A = np.exp(log_probabilities(learned.weights_, situation))
    slope_A = pi_A * (reward_A - pi_A @ reward_A)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(4000):
        actions = rng.choice(3, 3, p=pi_A).tolist()
        rows.append([([(situation, action)], float(reward_A[action])) for action in actions])
    found = gradient(learned.weights_, rows, entropy=0.0)
    exact = np.outer(slope_A, situation.state_D)
    assert np.abs(found.weights_AD - exact).max() < 0.02
    assert np.abs(exact).max() > 0.1


def test_a_try_counts_by_what_it_is_above_the_other_tries_of_its_query() -> None:
    world = TASK.environment(2, seed=0)
    learned = policy(0.0).fit(world, world.queries, settings=Settings(epochs=0))
    learned.weights_.weights_AD[:] = np.random.default_rng(0).normal(size=learned.weights_.weights_AD.shape)
    starts = [run(world, learned, query).trace.started for query in world.queries]
    cases = [learned.situation(Trace(started)) for started in starts]
    # An easy query, which every try answers, teaches nothing; a hard one its right try against the others.
    easy = [([(cases[0], action)], 1.0) for action in (0, 1, 2)]
    hard = [([(cases[1], 0)], 0.0), ([(cases[1], 1)], 1.0), ([(cases[1], 1)], 0.0)]
    found = gradient(learned.weights_, [easy, hard], entropy=0.0)
    scales = [(0 - 0.5) / 6, (1 - 0.0) / 6, (0 - 0.5) / 6]
    wanted = sum_gradient(learned.weights_, [cases[1]] * 3, [0, 1, 1], scales, entropy=0.0)
    np.testing.assert_allclose(found.weights_AD, wanted.weights_AD, atol=1e-12)
    assert np.abs(found.weights_AD).max() > 0.01


def test_the_entropy_bonus_keeps_training_from_being_sure_too_soon() -> None:
    world = TASK.environment(60, seed=0)
    fresh = policy(0.8).fit(world, world.queries, settings=Settings(epochs=0))
    traces = [Trace(run(world, fresh, query).trace.started) for query in world.queries]
    most = []
    for entropy in (0.0, 10.0):
        learned = policy(0.8).fit(world, world.queries, settings=replace(QUICK, entropy=entropy))
        logs = [log_probabilities(learned.weights_, learned.situation(trace)) for trace in traces]
        most.append(float(np.exp(logs).max(axis=1).mean()))
    assert most[0] > most[1] + 0.05


def test_it_never_asks_whom_it_may_not() -> None:
    world = TASK.environment(30, seed=0)
    learned = policy(0.0).fit(world, world.queries, settings=Settings(epochs=1))
    for query in world.queries:
        outcome = run(world, learned, query, bounds=Bounds(usd=1 / 32, calls=2))
        assert {seen.call.candidate for seen in outcome.trace.observed} == {"m0"}
        assert not [event for event in outcome.trace.events if type(event).__name__ == "Refused"]


def test_it_is_saved_with_router_scorer_and_embedder(tmp_path: object) -> None:
    table = shipped()
    world = ReplayEnvironment(table, independent=True)
    calls = single_calls(world, table.queries)
    seen = [observed for row in calls.seen for observed in row]
    queries = [query for query in calls.queries for _ in calls.names]
    scorer = LogisticScorer().fit(queries, seen, calls.quality_QM.ravel())
    learned = LearnedSequencer(
        price=100.0,
        embedder=TextEmbedder(num_features=8),
        router=BestSingleRouter().fit(table),
        scorer=scorer,
        is_greedy=True,
    ).fit(world, table.queries, settings=Settings(epochs=1, tries=2), bounds=Bounds(calls=2))
    again = load(save(learned, f"{tmp_path}/artifact"))
    assert isinstance(again, LearnedSequencer)
    for query in table.queries[:20]:
        events = [repr(run(world, one, query).trace.events) for one in (learned, again)]
        assert events[0] == events[1]
    with pytest.raises(NotFittedError):
        run(world, again.clone(), table.queries[0])


def test_a_router_gives_a_head_start() -> None:
    table = shipped()
    world = ReplayEnvironment(table, independent=True)
    router = BestSingleRouter().fit(table)
    best = table.names[int(router.estimate(table.queries[:1]).quality_QM[0].argmax())]
    start = LearnedSequencer(router=router, is_greedy=True).fit(
        world, table.queries, settings=Settings(epochs=0)
    )
    called = [[s.call.candidate for s in run(world, start, q).trace.observed] for q in table.queries[:10]]
    assert called == [[best]] * 10


def test_any_reward_can_be_plugged_in() -> None:
    world = TASK.environment(100, seed=0)
    cards = {candidate.name: candidate.price_card for candidate in world.candidates if candidate.price_card}
    published = RewardR1(cost_weight=0.9)

    def reward(outcome: Outcome) -> float:
        return published.scores([episode_of(outcome, cards, corrected=False)])[0]

    thrifty = policy(0.0, is_greedy=True).fit(
        world, world.queries, settings=QUICK, bounds=Bounds(calls=2), reward=reward
    )
    free = policy(0.0, is_greedy=True).fit(world, world.queries, settings=QUICK, bounds=Bounds(calls=2))
    spent = [
        np.mean([run(world, one, query, bounds=Bounds(calls=2)).usd for query in world.queries])
        for one in (thrifty, free)
    ]
    assert spent[0] < 0.7 * spent[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("price", -1.0), ("embedder", "text"), ("router", 3), ("scorer", "x"), ("max_samples", 0)],
)
def test_wrong_settings_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"LearnedSequencer.{name}"):
        LearnedSequencer(**{name: value})  # type: ignore[arg-type]


def test_training_needs_queries_and_two_tries() -> None:
    with pytest.raises(InputError, match="tries"):
        Settings(tries=1)
    world = TASK.environment(3, seed=0)
    with pytest.raises(InputError, match="queries"):
        policy(0.0).fit(world, [])
