"""Replay shows what was recorded of the calls that were made, and nothing else."""

from __future__ import annotations

import math
import time

import pytest

from tests.sequential.scripted import Scripted, small_table
from turnout.core import InputError, OutcomeTable, Query
from turnout.datasets import load
from turnout.sequential import (
    Abstain,
    Bounds,
    Call,
    FixedOrder,
    ReplayEnvironment,
    Sequencer,
    Stop,
    Trace,
    run,
)
from turnout.sequential.actions import Action
from turnout.sequential.trace import Started

SMALL, LARGE = Call(candidate="small"), Call(candidate="large")


def environment(**options: object) -> ReplayEnvironment:
    """Return the small table as an environment."""
    return ReplayEnvironment(small_table(), independent=True, **options)  # type: ignore[arg-type]


def trace_of(environment: ReplayEnvironment, query: Query) -> Trace:
    """Return a new trace of a query."""
    return Trace(Started(query=query, candidates=("small", "large"), bounds=Bounds(), seed=0))


def test_an_observation_is_the_recorded_outcome() -> None:
    outcome = run(environment(signals=["sure"]), Scripted(lines=[SMALL, Stop()]), small_table().queries[0])
    (seen,) = outcome.trace.observed
    assert (seen.answer, seen.usd, seen.output_tokens, seen.latency_s) == ("a", 0.01, 5, 1.0)
    assert seen.signals == {"sure": 0.5}
    assert seen.input_tokens is None
    assert outcome.quality == 0.0
    assert outcome.usd == 0.01


def test_quality_is_hidden_unless_it_is_revealed() -> None:
    table = small_table()
    hidden = run(environment(), Scripted(lines=[LARGE, Stop()]), table.queries[0])
    assert "quality" not in repr(hidden.trace.events)
    assert hidden.trace.started.reveals == ()
    shown = run(environment(reveals=["quality"]), Scripted(lines=[LARGE, Stop()]), table.queries[0])
    assert shown.trace.observed[0].signals == {"quality": 1.0}
    assert shown.trace.started.reveals == ("quality",)
    with pytest.raises(InputError, match="reveals"):
        environment(reveals=["reference"])


def test_what_is_not_called_leaves_no_mark() -> None:
    """Change every cell that is not called: not one event may change."""
    table = small_table()
    is_called = (table.candidate_index == 0) & (table.sample == 0)
    other = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        sample=table.sample,
        quality=[q if c else 1 - q for q, c in zip(table.quality, is_called, strict=True)],
        cost_usd=[u if c else u / 3 for u, c in zip(table.cost_usd, is_called, strict=True)],
        output_tokens=table.output_tokens,
        latency_s=table.latency_s,
        extras={"answer": [a if c else "x" for a, c in zip(table.extras["answer"], is_called, strict=True)]},
    )
    for query in table.queries:
        lines = Scripted(lines=[SMALL, Stop()])
        bounds = Bounds(usd=10.0)
        seen = [
            run(ReplayEnvironment(t, independent=True, costs=table), lines, query, bounds=bounds)
            for t in (table, other)
        ]
        assert repr(seen[0].trace.events) == repr(seen[1].trace.events)
        assert repr(seen[0].quality) == repr(seen[1].quality)


def test_independence_has_to_be_stated() -> None:
    with pytest.raises(InputError, match="do not depend on earlier calls"):
        ReplayEnvironment(small_table(), independent=False)
    with pytest.raises(TypeError):
        ReplayEnvironment(small_table())  # type: ignore[call-arg]


def test_a_sub_query_is_refused() -> None:
    lines = Scripted(lines=[Call(candidate="small", text="a part of it")])
    with pytest.raises(InputError, match="no answers to sub-queries"):
        run(environment(), lines, small_table().queries[0])


def test_samples_are_looked_up_and_must_exist() -> None:
    table = small_table()
    again: list[Action] = [SMALL, Call(candidate="small", sample=1), Stop()]
    assert run(environment(), Scripted(lines=again), table.queries[0]).quality == 1.0
    missing = run(environment(), Scripted(lines=again), table.queries[1])
    assert "sample 1" in (missing.trace.observed[1].error or "")
    assert (missing.answer, missing.quality) == ("c", 1.0)
    far = run(environment(), Scripted(lines=[Call(candidate="small", sample=9), Stop()]), table.queries[0])
    assert far.trace.observed[0].error is not None


def test_a_cell_that_was_not_recorded_is_an_error_of_unknown_charge() -> None:
    outcome = run(environment(), Scripted(lines=[LARGE, Stop()]), small_table().queries[3])
    assert "was recorded on 'q3'" in (outcome.trace.observed[0].error or "")
    assert (outcome.answer, outcome.quality, outcome.trace.num_unknown_charges) == (None, 0.0, 1)


def test_the_judge_knows_the_call_whose_answer_was_given() -> None:
    query = small_table().queries[0]
    for how, quality in (("first", 0.0), ("last", 1.0)):
        lines: list[Action] = [SMALL, LARGE, Stop(aggregate=how)]  # type: ignore[arg-type]
        assert run(environment(), Scripted(lines=lines), query).quality == quality
    assert run(environment(), Scripted(lines=[Abstain()]), query).quality == 0.0
    assert math.isnan(run(environment(), Scripted(lines=[Stop(answer="b")]), query).quality)
    assert math.isnan(environment().judge(trace_of(environment(), query)))


def test_most_usd_is_the_candidates_not_the_cells() -> None:
    world, queries = environment(), small_table().queries
    for query in queries:
        assert world.most_usd(SMALL, trace_of(world, query)) == 0.02
        assert world.most_usd(LARGE, trace_of(world, query)) == 0.3
    median = environment(quantile=0.5)
    assert median.most_usd(LARGE, trace_of(median, queries[1])) == pytest.approx(0.2)
    train = environment(costs=small_table().where([True, False, False, False]))
    assert train.most_usd(LARGE, trace_of(train, queries[1])) == 0.1
    nobody = environment(costs=small_table().where([False, False, False, True]))
    assert math.isnan(nobody.most_usd(LARGE, trace_of(nobody, queries[1])))


def test_an_overrun_of_the_stated_most_is_charged_in_full() -> None:
    world = environment(costs=small_table().where([True, False, False, False]))
    lines = Scripted(lines=[LARGE, SMALL, Stop()])
    outcome = run(world, lines, small_table().queries[1], bounds=Bounds(usd=0.2))
    assert outcome.usd == 0.3
    assert outcome.trace.num_calls == 1


def test_unknown_queries_and_columns_are_named() -> None:
    with pytest.raises(InputError, match="did you mean"):
        run(environment(), Scripted(lines=[SMALL]), Query(id="q9", text=None))
    with pytest.raises(InputError, match="'surely'"):
        environment(signals=["surely"])
    with pytest.raises(InputError, match="a column of numbers"):
        environment(signals=["answer"])


def test_a_deadline_asks_for_known_latencies() -> None:
    table = load("reason18")
    sequencer: Sequencer = FixedOrder(order=table.names[:2])
    world = ReplayEnvironment(table, independent=True)
    with pytest.raises(InputError, match="how long a call took is not known"):
        run(world, sequencer, table.queries[0], bounds=Bounds(deadline_s=9.0))


def test_the_loop_keeps_its_pace() -> None:
    """The promise is 0.2 ms a step: of processor time, the fastest of five rounds, on a busy machine too."""
    table = load("reason18")
    world = ReplayEnvironment(table, independent=True)
    sequencer: Sequencer = FixedOrder(order=table.names[:4])
    bounds = Bounds(usd=1.0, calls=8)
    best_s = math.inf
    for _ in range(5):
        started, steps = time.process_time(), 0
        for query in table.queries[:60]:
            steps += run(world, sequencer, query, bounds=bounds).trace.steps
        best_s = min(best_s, (time.process_time() - started) / steps)
    assert best_s < 2e-4
