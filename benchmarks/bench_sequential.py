"""This module measures sequences of calls: frontiers on tables, shares of a known optimum, overhead.

S7's question on real tables: what does a learned multi-round policy reach beside one-shot kNN, the best
single model, random, a two-model cascade and the oracle, at the same prices? Every table is cut once,
near-same texts kept together: on `fit` (45 %) the router and the scorer learn, on `policy` (25 %) the learned
policy is trained and the cascade searched, `test` (30 %) is only reported. One-shot kNN and `auto`, the best
single model and the prices come from `fit` and `policy` together. Intervals resample the queries of `test`,
near-same texts as a whole.

    python -m benchmarks.bench_sequential [--quick] [table ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import record
from benchmarks.sequential_picture import draw
from benchmarks.sequential_tables import Prepared, prepare
from turnout.core import Goal, OutcomeTable, Query
from turnout.core.contracts import Embedder
from turnout.core.outcomes import Floats, Ints
from turnout.core.rng import make_rng
from turnout.evaluation import near_duplicates, split
from turnout.evaluation.bootstrap import group_numbers, resampled_means
from turnout.features import TextEmbedder
from turnout.policies import Best, Deployment, price_grid
from turnout.routers import BestSingleRouter, KNNRouter
from turnout.sequential import (
    Bounds,
    Cascade,
    Environment,
    FixedOrder,
    LearnedSequencer,
    LogisticScorer,
    OneShot,
    OptimalSequencer,
    RandomSequencer,
    ReplayEnvironment,
    Sequencer,
    Settings,
    SyntheticTask,
    optimal_value,
    run,
)
from turnout.sequential.episodes import SingleCalls, single_calls
from turnout.training import train

NAMES = ("zeroeval", "lookahead", "mot_cascade", "mot_cascade:date")
SEED = 0
CLAIM = (
    "Router-R1 (S7, arXiv 2506.09033): multi-round routing learned with a reward beats one-shot routers and "
    "single models on seven question-answering sets, with a language model as the policy"
)
BUDGETS_USD = (1 / 64, 1 / 16, 1 / 8, 1 / 2, 1.0)
MAX_CALLS = 3


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    max_queries: int = 2000
    prices: int = 4
    seeds: int = 3
    settings: Settings = field(default_factory=lambda: Settings(epochs=5, tries=4))
    tasks: int = 1000
    resamples: int = 1000


QUICK = Size(
    max_queries=240, prices=2, seeds=1, settings=Settings(epochs=2, tries=2), tasks=150, resamples=200
)


def play(environment: Environment, sequencer: Sequencer, queries: Sequence[Query], bounds: Bounds) -> Floats:
    """Return quality, cost, calls and output tokens of every query, shape (Q, 4)."""
    rows = []
    for number, query in enumerate(queries):
        outcome = run(environment, sequencer, query, bounds=bounds, seed=number)
        tokens = sum(seen.output_tokens or 0 for seen in outcome.trace.observed)
        rows.append((outcome.quality, outcome.usd, outcome.trace.num_calls, tokens))
    return np.nan_to_num(np.array(rows, np.float64), nan=0.0)


def interval(values_QP: Floats, size: Size, groups_Q: Ints | None = None) -> list[dict[str, float]]:
    """Return mean and 95 % interval of every column; groups are resampled whole."""
    rng = make_rng(SEED, "bootstrap")
    means_BP = resampled_means(values_QP, num_resamples=size.resamples, rng=rng, groups_Q=groups_Q)
    low_P, high_P = np.quantile(means_BP, [0.025, 0.975], axis=0)
    rows = zip(values_QP.mean(axis=0).tolist(), low_P.tolist(), high_P.tolist(), strict=True)
    return [{"value": value, "low": low, "high": high} for value, low, high in rows]


def alike(whole: OutcomeTable, parts: Mapping[str, OutcomeTable]) -> dict[str, Ints]:
    """Return for each part which group of near-same texts each of its queries is of (Q,).

    Groups are those of the whole table, by which it was cut: what is the template of a benchmark and not a
    question shows in many texts alone.
    """
    found = near_duplicates([query.text for query in whole.queries]).tolist()
    group = dict(zip((query.id for query in whole.queries), found, strict=True))
    return {name: group_numbers([group[q.id] for q in part.queries]) for name, part in parts.items()}


def point(rows_Q4: Floats, size: Size, groups_Q: Ints) -> dict[str, object]:
    """Return the means of a method, with intervals for quality and cost."""
    quality, usd = interval(rows_Q4[:, :2], size, groups_Q)
    return {
        "quality": quality,
        "cost": usd,
        "calls": float(rows_Q4[:, 2].mean()),
        "output_tokens": float(rows_Q4[:, 3].mean()),
    }


def frontier(prepared: Prepared, size: Size) -> dict[str, object]:
    """Return every method at every price on the test part of a table."""
    parts = split(prepared.table, {"fit": 0.45, "policy": 0.25, "test": 0.3}, seed=SEED)
    groups = alike(prepared.table, parts)
    known = prepared.table.select(ids=[q.id for part in ("fit", "policy") for q in parts[part].queries])
    worlds = {name: _world(table, prepared, costs=known) for name, table in {**parts, "known": known}.items()}
    text = TextEmbedder(num_features=64).fit(known.queries)
    router, scorer = _learn(parts["fit"], worlds["fit"], prepared, text)
    knn = KNNRouter(embedder=text).fit(known)
    deployment = Deployment(router=knn, fallback=BestSingleRouter().fit(known), policy=Best(), goal=Goal())
    auto = train(known, Goal(), seed=SEED)
    prices = price_grid(knn.estimate(known.queries), num=size.prices + 1)[:-1]
    asked = single_calls(worlds["policy"], parts["policy"].queries)
    rows = []
    for price in prices.tolist():
        methods: dict[str, Sequencer] = {
            "one-shot kNN": OneShot(deployment=deployment, goal=_goal(price)),
            "one-shot auto": OneShot(deployment=auto, goal=_goal(price)),
            "best single": FixedOrder(order=(_best_single(known, price),)),
            "random": RandomSequencer(),
            "cascade": _cascade(scorer, asked, price),
        }
        learned = _train(price, parts["policy"], worlds["policy"], router, scorer, prepared, size)
        rows.append(_judge(price, methods, learned, parts["test"], worlds["test"], groups["test"], size))
        print(f"  price {price:.4g}: {_summary(rows[-1])}", flush=True)
    return {
        "fingerprint": prepared.table.fingerprint,
        "unit": prepared.unit,
        "note": prepared.note,
        "candidates": len(prepared.table.candidates),
        "queries": {name: len(part.queries) for name, part in parts.items()},
        "groups": {name: int(groups_Q.max()) + 1 for name, groups_Q in groups.items()},
        "prices": rows,
        "verdict": _verdict(rows),
    }


def _world(table: OutcomeTable, prepared: Prepared, *, costs: OutcomeTable) -> ReplayEnvironment:
    return ReplayEnvironment(table, independent=True, signals=prepared.signals, costs=costs)


def _learn(
    table: OutcomeTable, world: ReplayEnvironment, prepared: Prepared, text: Embedder
) -> tuple[KNNRouter, LogisticScorer]:
    """Fit what the policies are given, on queries that they are not trained on."""
    calls = single_calls(world, table.queries)
    seen = [observed for row in calls.seen for observed in row]
    queries = [query for query in calls.queries for _ in calls.names]
    answers = TextEmbedder(num_features=32) if "response" in table.extras else None
    scorer = LogisticScorer(embedder=text, answers=answers, signals=prepared.signals)
    return KNNRouter(embedder=text).fit(table), scorer.fit(queries, seen, calls.quality_QM.ravel())


def _goal(price: float) -> Goal:
    return Goal(usd_per_quality=1.0 / price) if price else Goal()


def _best_single(table: OutcomeTable, price: float) -> str:
    gain_M = np.nanmean(table.quality_QM - price * table.cost_usd_QM, axis=0)
    return table.names[int(gain_M.argmax())]


def _cascade(scorer: LogisticScorer, asked: SingleCalls, price: float) -> Cascade:
    return Cascade(scorer=scorer, price=price).fit_calls(asked)


def _train(
    price: float,
    table: OutcomeTable,
    world: ReplayEnvironment,
    router: KNNRouter,
    scorer: LogisticScorer,
    prepared: Prepared,
    size: Size,
) -> list[LearnedSequencer]:
    bounds = Bounds(calls=MAX_CALLS)
    return [
        LearnedSequencer(
            price=price, router=router, scorer=scorer, signals=prepared.signals, is_greedy=True
        ).fit(world, table.queries, bounds=bounds, settings=size.settings, seed=seed)
        for seed in range(size.seeds)
    ]


def _judge(
    price: float,
    methods: dict[str, Sequencer],
    learned: Sequence[LearnedSequencer],
    table: OutcomeTable,
    world: ReplayEnvironment,
    groups_Q: Ints,
    size: Size,
) -> dict[str, object]:
    bounds = Bounds(calls=MAX_CALLS)
    runs = {name: play(world, method, table.queries, bounds) for name, method in methods.items()}
    seeds = [play(world, policy, table.queries, bounds) for policy in learned]
    runs["learned"] = np.mean(seeds, axis=0)
    gain_QM = table.quality_QM - price * table.cost_usd_QM
    best_Q, every = np.nanargmax(gain_QM, axis=1), np.arange(len(gain_QM))
    oracle = [table.quality_QM[every, best_Q], table.cost_usd_QM[every, best_Q]]
    tokens_Q = np.nan_to_num(table.output_tokens_QM[every, best_Q])
    runs["oracle"] = np.stack([*oracle, np.ones(len(gain_QM)), tokens_Q], axis=1)
    gain = {name: rows[:, 0] - price * rows[:, 1] for name, rows in runs.items()}
    others = [name for name in runs if name not in ("learned", "oracle")]
    lead = interval(np.stack([gain["learned"] - gain[name] for name in others], axis=1), size, groups_Q)
    return {
        "price": price,
        "methods": {name: point(rows, size, groups_Q) for name, rows in runs.items()},
        "utility": {name: float(values.mean()) for name, values in gain.items()},
        "learned_utility_by_seed": [float((rows[:, 0] - price * rows[:, 1]).mean()) for rows in seeds],
        "learned_minus": dict(zip(others, lead, strict=True)),
        "cascade_order": list(getattr(methods["cascade"], "order_", ())),
    }


def _summary(row: dict[str, object]) -> str:
    utility = row["utility"]
    assert isinstance(utility, dict)
    return ", ".join(f"{name} {value:.4f}" for name, value in utility.items())


def _verdict(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Count the prices at which the learned policy is better or worse than each other method, at 95 %."""
    verdict: dict[str, object] = {"claim": CLAIM}
    for name in ("one-shot kNN", "one-shot auto", "best single", "cascade", "random"):
        lead = [row["learned_minus"][name] for row in rows]  # type: ignore[index]
        verdict[name] = {
            "better": sum(item["low"] > 0 for item in lead),
            "worse": sum(item["high"] < 0 for item in lead),
            "prices": len(lead),
        }
    return verdict


class HintEmbedder(Embedder):
    """The hint of a synthetic task as a one-hot vector."""

    def __init__(self, *, num: int) -> None:
        self.num = num

    def fit(self, queries: Sequence[Query]) -> HintEmbedder:
        """Return self: nothing is learned."""
        return self

    def embed(self, queries: Sequence[Query]) -> np.ndarray:
        """Return one row per query."""
        return np.eye(self.num, dtype=np.float32)[[int(query.tags["hint"]) for query in queries]]


def synthetic(size: Size) -> list[dict[str, object]]:
    """Return the share of the optimum at five budgets, by methods that do not know the task."""
    task = SyntheticTask()
    train, test = task.environment(size.tasks, seed=SEED), task.environment(2 * size.tasks, seed=SEED + 1)
    rows = []
    for budget_usd in BUDGETS_USD:
        best = optimal_value(task, budget_usd=budget_usd)
        bounds = Bounds(usd=budget_usd, calls=task.rounds)
        methods: dict[str, Sequencer] = {
            "optimum, simulated": OptimalSequencer(task=task),
            "best single": _best_fixed(train, bounds),
            "random": RandomSequencer(),
        }
        found = {name: play(test, method, test.queries, bounds)[:, 0] for name, method in methods.items()}
        learned = [
            LearnedSequencer(
                embedder=HintEmbedder(num=2), signals=("signal",), max_samples=task.rounds, is_greedy=True
            ).fit(train, train.queries, bounds=bounds, settings=size.settings, seed=seed)
            for seed in range(size.seeds)
        ]
        runs = [play(test, policy, test.queries, bounds)[:, 0] for policy in learned]
        found["learned"] = np.mean(runs, axis=0)
        shares = interval(np.stack(list(found.values()), axis=1) / best, size)
        row = {"budget_usd": budget_usd, "optimum": best, "share": dict(zip(found, shares, strict=True))}
        row["learned_by_seed"] = [float(values.mean() / best) for values in runs]
        rows.append(row)
        print(
            f"  budget {budget_usd:.4g}: " + ", ".join(f"{n} {v.mean() / best:.3f}" for n, v in found.items())
        )
    return rows


def _best_fixed(world: Environment, bounds: Bounds) -> FixedOrder:
    queries = world.queries  # type: ignore[attr-defined]
    orders = [FixedOrder(order=(candidate.name,)) for candidate in world.candidates]
    return max(orders, key=lambda order: float(play(world, order, queries, bounds)[:, 0].mean()))


def overhead(table: OutcomeTable) -> dict[str, object]:
    """Return milliseconds of the loop per step, without and with every bound.

    A deadline needs to know how long calls took, so each of them takes a second here.
    """
    world = ReplayEnvironment(_timed(table), independent=True)
    order = FixedOrder(order=table.names[:4])
    every = Bounds(usd=1e9, calls=9, deadline_s=1e9)
    result: dict[str, object] = {"candidates": len(table.candidates), "promise_ms": 0.2}
    for name, bounds in (("no bounds", Bounds()), ("all bounds", every)):
        taken_ms = _timed_ms(lambda q, b=bounds: run(world, order, q, bounds=b).trace.steps, table.queries)  # type: ignore[misc]
        result[name] = {f"p{level}_ms": float(np.percentile(taken_ms, level)) for level in (1, 50, 95)}
    return result


def _timed(table: OutcomeTable) -> OutcomeTable:
    names = ("queries", "candidates", "query_index", "candidate_index", "sample", "quality", "cost_usd")
    columns = {name: getattr(table, name) for name in names}
    return OutcomeTable(**columns, latency_s=np.ones(table.num_rows))


def _timed_ms(play_one: Callable[[Query], int], queries: Sequence[Query]) -> list[float]:
    taken_ms = []
    for number in range(600):
        query = queries[number % len(queries)]
        started = time.perf_counter()
        steps = play_one(query)
        taken_ms.append((time.perf_counter() - started) / steps * 1e3)
    return taken_ms[20:]


def main(arguments: list[str]) -> None:
    """Write `sequential.json` and `sequential.png`; with --quick only try everything out."""
    is_quick = "--quick" in arguments
    size = QUICK if is_quick else Size()
    only = [name for name in arguments if not name.startswith("--")]
    tables: dict[str, object] = {}
    result: dict[str, object] = {"size": asdict(size), "claim": CLAIM, "tables": tables}
    for name in (*NAMES, "reason18"):
        # The shipped table stands in where the others are not here.
        is_wanted = name in only if only else name != "reason18" or not tables
        prepared = prepare(name, size.max_queries, seed=SEED) if is_wanted else None
        if prepared is None:
            continue
        print(f"{name}: {prepared.table!r}", flush=True)
        started = time.perf_counter()
        if "overhead" not in result:
            result["overhead"] = overhead(prepared.table)
        tables[name] = {**frontier(prepared, size), "seconds": time.perf_counter() - started}
    print("synthetic task", flush=True)
    result["synthetic"] = synthetic(size)
    if is_quick:
        # A trial run of everything; its numbers are too few to keep.
        with TemporaryDirectory() as folder:
            draw(result, Path(folder) / "sequential.png")
        return
    print(record.write("sequential", result, seed=SEED).name)
    print(draw(result, record.RESULTS / "sequential.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
