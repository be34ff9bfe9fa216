"""A cascade finds the order and the threshold that pay, and stops by them."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Candidate, InputError, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.core.outcomes import Floats
from turnout.sequential import (
    Bounds,
    Cascade,
    LearnedSequencer,
    LogisticScorer,
    ReplayEnvironment,
    run,
)
from turnout.sequential.cascade import _gain, _search
from turnout.sequential.episodes import single_calls

NAMES = ("cheap", "mid", "dear")
USD = (0.01, 0.05, 0.5)


def table(num: int, *, seed: int, without: str | None = None, is_dear_known: bool = True) -> OutcomeTable:
    """Return answers whose signal tells right from wrong, mostly."""
    rng = np.random.default_rng(seed)
    right_QM = rng.random((num, 3)) < (0.5, 0.6, 0.95)
    sure_QM = np.clip(0.35 + 0.3 * right_QM + rng.normal(0, 0.12, (num, 3)), 0, 1)
    cells = [(q, m) for q in range(num) for m in range(3) if NAMES[m] != without]
    return OutcomeTable(
        queries=[Query(id=f"q{q}", text=f"text {q}") for q in range(num)],
        candidates=[Candidate(model=name) for name in NAMES],
        query_index=[q for q, _ in cells],
        candidate_index=[m for _, m in cells],
        quality=[float(right_QM[cell]) for cell in cells],
        cost_usd=[USD[m] if is_dear_known or m < 2 else np.nan for _, m in cells],
        extras={"answer": ["x"] * len(cells), "sure": [float(sure_QM[cell]) for cell in cells]},
    )


def world(data: OutcomeTable) -> ReplayEnvironment:
    """Return a table as an environment."""
    return ReplayEnvironment(data, independent=True, signals=["sure"], costs=table(2, seed=0))


def scorer() -> LogisticScorer:
    """Return a scorer that has learned from the signal."""
    data = table(300, seed=1)
    calls = single_calls(world(data), data.queries)
    queries = [query for query in calls.queries for _ in NAMES]
    seen = [observed for row in calls.seen for observed in row]
    return LogisticScorer(signals=["sure"]).fit(queries, seen, calls.quality_QM.ravel())


def fitted(price: float = 0.5, order: tuple[str, ...] | None = None) -> Cascade:
    """Return a cascade that was searched on queries of its own."""
    data = table(200, seed=2)
    return Cascade(scorer=scorer(), price=price, order=order).fit(world(data), data.queries)


def test_at_a_price_answers_whose_charge_nobody_knows_are_refused() -> None:
    data = table(60, seed=2, is_dear_known=False)
    found = Cascade(scorer=scorer(), price=0.0).fit(world(data), data.queries)
    assert "dear" in found.order_
    with pytest.raises(InputError, match=r"what a call to 'dear' cost.*known.*price=0"):
        Cascade(scorer=scorer(), price=0.5).fit(world(data), data.queries)
    assert (
        Cascade(scorer=scorer(), price=0.5, order=("cheap", "mid")).fit(world(data), data.queries).is_fitted
    )
    with pytest.raises(InputError, match="LearnedSequencer: what a call to 'dear' cost"):
        LearnedSequencer(price=0.5).fit(world(data), data.queries)


def brute_force(score_QL: Floats, quality_QL: Floats, usd_QL: Floats, price: float) -> float:
    """Return the best value of any threshold, trying each score and the ends."""
    gain_QL = quality_QL - price * usd_QL.cumsum(axis=1)
    tried = [0.0, *score_QL[:, 0].tolist(), np.inf]
    return max(float(np.where(score_QL[:, 0] >= t, gain_QL[:, 0], gain_QL[:, 1]).mean()) for t in tried)


@pytest.mark.parametrize("price", [0.0, 0.5, 2.0])
def test_the_search_over_pairs_is_exact(price: float) -> None:
    rng = np.random.default_rng(3)
    score, quality, usd = rng.random((60, 2)), rng.random((60, 2)), rng.random((60, 2)) * 0.5
    value, thresholds = _search(score, quality, usd, price=price, grid=400)
    assert value == pytest.approx(brute_force(score, quality, usd, price), abs=1e-12)
    gain = quality - price * usd.cumsum(axis=1)
    assert value == pytest.approx(_gain(score, gain, thresholds).mean())


def test_it_beats_every_single_model_at_its_price() -> None:
    price, test = 0.5, table(300, seed=4)
    cascade = fitted(price)
    place = world(test)
    outcomes = [run(place, cascade, query) for query in test.queries]
    value = np.mean([outcome.quality - price * outcome.usd for outcome in outcomes])
    singles = (test.quality_QM - price * test.cost_usd_QM).mean(axis=0)
    assert value > singles.max() + 0.03
    assert cascade.order_[-1] == "dear"
    share = np.mean([outcome.trace.num_calls == 2 for outcome in outcomes])
    assert 0.1 < share < 0.9


def test_money_that_is_worth_nothing_and_money_that_is_worth_all() -> None:
    test = table(50, seed=5)
    generous, thrifty = fitted(0.0, ("cheap", "dear")), fitted(1e6, ("cheap", "dear"))
    rich = [run(world(test), generous, query) for query in test.queries]
    poor = [run(world(test), thrifty, query) for query in test.queries]
    assert np.mean([outcome.trace.num_calls for outcome in rich]) > 1.5
    assert {outcome.trace.num_calls for outcome in poor} == {1}


def test_three_models_are_searched_place_by_place() -> None:
    long, short = (fitted(0.5, order) for order in (("cheap", "mid", "dear"), ("cheap", "dear")))
    assert long.order_ == ("cheap", "mid", "dear")
    assert long.thresholds_.shape == (2,)
    data = table(200, seed=2)
    values = []
    for cascade in (long, short):
        place = world(data)
        outcomes = [run(place, cascade, query) for query in data.queries]
        values.append(np.mean([outcome.quality - 0.5 * outcome.usd for outcome in outcomes]))
    # With a threshold that is never reached, the longer one could be dearer, never blind to the shorter.
    assert values[0] > values[1] - 0.05


def test_a_failure_goes_on_and_a_budget_ends_it() -> None:
    broken = world(table(20, seed=6, without="cheap"))
    cascade = fitted(0.5, ("cheap", "dear"))
    outcome = run(broken, cascade, table(20, seed=6).queries[0])
    assert [seen.error is None for seen in outcome.trace.observed] == [False, True]
    whole = table(40, seed=7)
    capped = [run(world(whole), cascade, query, bounds=Bounds(usd=0.1)) for query in whole.queries]
    assert {outcome.trace.num_calls for outcome in capped} == {1}
    assert {outcome.ended.how for outcome in capped} == {"stop"}


def test_it_is_saved(tmp_path: object) -> None:
    cascade, test = fitted(), table(30, seed=8)
    again = load(save(cascade, f"{tmp_path}/artifact"))
    assert isinstance(again, Cascade)
    assert again.order_ == cascade.order_
    for query in test.queries:
        assert run(world(test), again, query).usd == run(world(test), cascade, query).usd


@pytest.mark.parametrize("order", [("cheap",), ("cheap", "cheap"), "cheap"])
def test_an_order_has_two_names(order: object) -> None:
    with pytest.raises(InputError, match=r"Cascade\.order"):
        Cascade(scorer=scorer(), order=order)  # type: ignore[arg-type]


def test_names_outside_the_pool_are_refused() -> None:
    with pytest.raises(InputError, match="huge"):
        fitted(order=("cheap", "huge"))
