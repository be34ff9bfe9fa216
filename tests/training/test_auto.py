"""Auto: it joins what is known, steps aside from noise, and holds on tables of any size and fill."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import worded_queries
from turnout.core import Candidate, Goal, InputError, OutcomeTable, Query, TableError, UnknownNameError
from turnout.core.artifact import load, save
from turnout.datasets import load as load_table
from turnout.datasets import synthetic
from turnout.features import TextEmbedder
from turnout.policies import Deployment
from turnout.routers import BlendRouter, KNNRouter
from turnout.routers.stacking import Evidence, Weights
from turnout.training import Shares, learn_auto, train
from turnout.training.auto import kept, triples
from turnout.training.cross_fit import Fold, cut
from turnout.training.learners import learners

WORLD = synthetic(num_queries=1500, seed=3)
SMALL = TextEmbedder(num_features=32, max_words=2_000, max_pairs=1_000, max_grams=1_000)


def world(
    num_queries: int, num_candidates: int, *, fill: float = 1.0, signal: float = 0.25, seed: int = 0
) -> tuple[OutcomeTable, np.ndarray]:
    """Return outcomes that depend on the words of a text, and the true chance of each cell.

    Each candidate has one of three kinds of text that it is good at.
    """
    rng = np.random.default_rng(seed)
    queries = worded_queries(num_queries, seed=seed)
    is_own_KM = np.arange(3)[:, None] == np.arange(num_candidates) % 3
    of_kind_KM = signal * np.where(is_own_KM, 1.0, -0.5) + 0.05 * rng.standard_normal(num_candidates)
    chance_QM = 0.5 + of_kind_KM[np.arange(num_queries) % 3]
    keep_N = rng.random(chance_QM.size) < fill
    return (
        OutcomeTable(
            queries=queries,
            candidates=[Candidate(model=f"m{j}") for j in range(num_candidates)],
            query_index=np.repeat(np.arange(num_queries), num_candidates)[keep_N],
            candidate_index=np.tile(np.arange(num_candidates), num_queries)[keep_N],
            quality=(rng.random(chance_QM.size) < chance_QM.ravel())[keep_N].astype(float),
        ),
        chance_QM,
    )


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
    )


@cache
def deployment() -> Deployment:
    return train(WORLD.table.select(split="train"), Goal(usd_per_quality=0.02), seed=0)


def worth(made: Deployment, price: float) -> float:
    """Return quality minus price times usd in the true world."""
    choice_Q = made.decide(WORLD.table.select(split="test").queries).choice_Q
    quality, usd = WORLD.worth_of(choice_Q, split="test")
    return quality - price * usd


def test_on_a_world_with_signal_it_beats_ridge_and_the_best_single_model() -> None:
    goal, part = Goal(usd_per_quality=0.02), WORLD.table.select(split="train")
    assert deployment().plan().is_open
    assert isinstance(deployment().router, BlendRouter)
    ridge = worth(train(part, goal, router="ridge", seed=0), 50.0)
    choice_Q = deployment().fallback.estimate(WORLD.table.select(split="test").queries).quality_QM
    assert worth(deployment(), 50.0) > ridge
    single = WORLD.worth_of(choice_Q.argmax(axis=1), split="test")
    assert worth(deployment(), 50.0) > single[0] - 50.0 * single[1] + 0.02


def test_it_learns_from_all_and_is_judged_by_what_did_not_see_the_query() -> None:
    part = WORLD.table.select(split="train")
    queries = deployment().certificate["table"]["queries"]  # type: ignore[index]
    assert queries["fit"] == len(part.queries) == queries["calibrate"] + queries["guard"]
    assert queries["calibrate"] > queries["guard"] > 0
    about = deployment().certificate["auto"]
    assert isinstance(about, dict)
    assert about["error"]["auto"] <= min(about["error"].values()) + 0.01


def test_what_cannot_be_known_is_not_claimed_to_be_known() -> None:
    # An estimate that had seen the outcomes would have a smaller error than the means.
    for seed in range(2):
        found = learn_auto(shuffled(WORLD.table, seed), embedder=SMALL, seed=seed)
        error = found.about["error"]
        assert isinstance(error, dict)
        assert 0.995 < error["auto"] < 1.01


def test_the_guard_opens_on_noise_as_rarely_as_it_says() -> None:
    opened = 0
    for seed in range(8):
        table, _ = world(300, 3, signal=0.0, seed=seed)
        opened += train(table, Goal(), seed=seed).plan().is_open
    assert opened <= 2


@pytest.mark.parametrize(
    ("num_queries", "num_candidates", "fill", "share"),
    [(500, 2, 0.5, 0.0), (500, 80, 0.5, 0.7), (700, 10, 1.0, 0.7), (1500, 5, 0.5, 0.7)],
)
def test_sizes_and_holes(num_queries: int, num_candidates: int, fill: float, share: float) -> None:
    table, chance_QM = world(num_queries, num_candidates, fill=fill, signal=0.3)
    made = train(table, Goal(), seed=0)
    found = chance_QM[np.arange(num_queries), made.decide(table.queries).choice_Q].mean()
    best, oracle = chance_QM.mean(axis=0).max(), chance_QM.max(axis=1).mean()
    assert found >= best + share * (oracle - best) - 1e-9


@pytest.mark.parametrize("name", ["open9", "reason18"])
def test_a_real_table_of_500_queries_with_half_its_cells_is_not_made_worse(name: str) -> None:
    table = load_table(name)
    order = np.random.default_rng(0).permutation(len(table.queries))
    mine, rest = np.zeros(order.size, np.bool_), np.zeros(order.size, np.bool_)
    mine[order[:500]], rest[order[500:1500]] = True, True
    part = table.where(mine)
    sparse = part.with_rows(np.random.default_rng(1).random(part.num_rows) < 0.5)
    made, test = train(sparse, Goal(), seed=0), table.where(rest)
    assert made.frontier is not None
    quality_Q = test.quality_QM[np.arange(len(test.queries)), made.decide(test.queries).choice_Q]
    single_Q = test.quality_QM[:, made.frontier.best]
    error = (quality_Q - single_Q).std() / len(test.queries) ** 0.5
    assert (quality_Q - single_Q).mean() > -2.0 * error - 1e-12
    assert np.isfinite(made.router.estimate(test.queries).quality_QM).all()


def test_the_best_single_model_may_have_few_answers_where_they_are_a_fair_sample() -> None:
    rng = np.random.default_rng(0)
    seen_QM, chance_QM = rng.random((600, 3)) < [0.9, 0.9, 0.2], np.broadcast_to([0.5, 0.55, 0.8], (600, 3))
    row_N, column_N = np.nonzero(seen_QM)
    table = OutcomeTable(
        queries=worded_queries(600, seed=0),
        candidates=[Candidate(model=name) for name in ("a", "b", "c")],
        query_index=row_N,
        candidate_index=column_N,
        quality=(rng.random((600, 3)) < chance_QM)[seen_QM].astype(float),
    )
    made = train(table, Goal(), embedder=SMALL, seed=0)
    assert made.frontier is not None
    assert table.names[made.frontier.best] == "c"
    assert made.decide(table.queries).names_Q.count("c") > 590


def test_a_lucky_leader_of_few_answers_is_not_believed() -> None:
    claims, leads = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        chance_M, rate_M = 0.6 + 0.05 * rng.standard_normal(150), rng.uniform(0.05, 0.4, 150)
        row_N, column_N = np.nonzero(rng.random((250, 150)) < rate_M)
        table = OutcomeTable(
            queries=worded_queries(250, seed=seed),
            candidates=[Candidate(model=f"m{j}") for j in range(150)],
            query_index=row_N,
            candidate_index=column_N,
            quality=(rng.random(row_N.size) < chance_M[column_N]).astype(float),
        )
        found = learn_auto(table, embedder=SMALL, seed=seed).router.estimate(table.queries[:40])
        rows, best_Q = np.arange(40), found.quality_QM.argmax(axis=1)
        off_Q = found.quality_QM[rows, best_Q] - chance_M[best_Q]
        claims.append((off_Q / found.spread_QM[rows, best_Q]).mean())
        leads.append(off_Q.mean())
    # Means as they are lead by 0.2 and more than three of their deviations.
    assert np.mean(leads) < 0.08
    assert np.mean(claims) < 1.5


def test_the_guard_asks_less_of_a_blend_than_of_a_router_that_was_named() -> None:
    wide, _ = world(200, 4, seed=0)
    table = wide.select(candidates=list(wide.names[:3]))
    confidence = []
    for router, given in (("auto", None), ("knn", None), ("auto", 0.95)):
        made = train(table, Goal(), router=router, embedder=SMALL, guard_confidence=given)
        assert made.guard is not None
        confidence.append(made.guard.confidence)
        grown = made.add_candidate(wide.candidates[3], wide)
        assert grown.arrivals is not None
        confidence.append(grown.arrivals.confidence)
    # What a newcomer's own rows say was not shrunk.
    assert confidence == [0.8, 0.9, 0.9, 0.9, 0.95, 0.95]


def test_a_half_empty_table_still_opens_the_guard() -> None:
    # On the queries where choice and single were both run, one in four, it was too unsure to open.
    table, chance_QM = world(400, 8, fill=0.5, signal=0.2, seed=1)
    made = train(table, Goal(), tasks_given=True, seed=0)
    assert made.plan().is_open
    choice_Q = made.decide(table.queries).choice_Q
    assert chance_QM[np.arange(400), choice_Q].mean() > chance_QM.mean(axis=0).max() + 0.1


def test_a_task_is_read_only_where_it_is_said_to_come() -> None:
    table, _ = world(600, 4)
    claimed = [replace(query, task="story") for query in table.queries[:30]]
    inferred = train(table, Goal())
    assert inferred.decide(claimed).names_Q == inferred.decide(table.queries[:30]).names_Q
    given = train(table, Goal(), tasks_given=True)
    silent = [replace(query, text="", task=query.task) for query in table.queries[:30]]
    assert given.decide(silent).names_Q == given.decide(table.queries[:30]).names_Q
    assert len(set(given.decide(silent).names_Q)) > 1


@pytest.mark.parametrize(
    "write",
    [
        lambda text, number: f"{text} {number}",
        lambda text, _: text.upper(),
        lambda text, _: text.replace(" ", "\n"),
        # Of middling length, between short and long: no line in the length tells.
        lambda text, number: " ".join([text] * (4 + number % 2)),
    ],
)
def test_what_words_cannot_tell_is_found_by_signals(write: Callable[[str, int], str]) -> None:
    rng = np.random.default_rng(5)
    is_on_Q = np.arange(600) % 2 == 0
    others = [
        " ".join([query.words] * (1 + 10 * (i % 4 // 2))) for i, query in enumerate(worded_queries(600))
    ]
    numbers = rng.permutation(90_000) + 10_000
    texts = [
        write(query.words, int(number)) if is_on else other
        for query, other, number, is_on in zip(worded_queries(600), others, numbers, is_on_Q, strict=False)
    ]
    truth_QM = np.where(is_on_Q[:, None] == (np.arange(4) % 2 == 0), 0.8, 0.35)
    row, column = np.indices(truth_QM.shape).reshape(2, -1)
    table = OutcomeTable(
        queries=[Query(id=f"q{i}", text=text) for i, text in enumerate(texts)],
        candidates=[Candidate(model=f"m{j}") for j in range(4)],
        query_index=row,
        candidate_index=column,
        quality=(rng.random(truth_QM.shape) < truth_QM).ravel().astype(float),
    )
    half = np.arange(600) < 400
    made = train(table.where(half), embedder=SMALL)
    assert made.plan().is_open
    chosen = [table.names.index(str(name)) for name in made.decide(table.queries[400:]).names_Q]
    assert truth_QM[400:][np.arange(200), chosen].mean() > 0.72


def test_learners_follow_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = world(60, 3)
    blind = OutcomeTable(
        queries=[replace(query, task=None) for query in table.queries],
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
    )
    assert set(learners(blind, tasks_given=True)) == {
        *("ridge", "avengers", "uniroute", "knn", "signals", "signal_groups")
    }
    assert {"inferred_group", "group_mean"} <= set(learners(table, tasks_given=True))
    untold = learners(table, tasks_given=False)
    assert "group_mean" not in untold
    assert untold["inferred_group"].config()["reads_task"] is False
    monkeypatch.setattr("turnout.training.learners.MAX_STORED", len(table.queries) - 1)
    assert "knn" not in learners(table, tasks_given=False)
    assert learn_auto(table).about["not_tried"] == ["knn"]


def test_topics_finer_than_clusters_are_not_lost_on_a_large_table() -> None:
    """500 topics of three words each and one candidate good at each: clusters do not know them."""
    rng = np.random.default_rng(0)
    good_K = rng.integers(0, 3, 500)
    topic_Q = rng.integers(0, 500, 5_600)
    filler = [f"filler{n}" for n in range(60)]
    texts = [" ".join([f"x{k}a", f"y{k}b", f"z{k}c", *rng.choice(filler, 4)]) for k in topic_Q]
    truth_QM = np.where(np.arange(3) == good_K[topic_Q, None], 0.9, 0.3)
    queries = [Query(id=f"q{n}", text=text) for n, text in enumerate(texts)]
    row_N, column_N = (index.ravel() for index in np.indices((5_100, 3)))
    table = OutcomeTable(
        queries=queries[:5_100],
        candidates=[Candidate(model=f"m{n}") for n in range(3)],
        query_index=row_N,
        candidate_index=column_N,
        quality=(rng.random((5_100, 3)) < truth_QM[:5_100]).astype(float).ravel(),
    )
    learned = learn_auto(table)
    given = {}
    for name, router in {"auto": learned.router, "knn": KNNRouter().fit(table)}.items():
        choice_Q = router.estimate(queries[5_100:]).quality_QM.argmax(1)
        given[name] = truth_QM[5_100:][np.arange(500), choice_Q].mean()
    assert given["auto"] > given["knn"] - 0.02
    assert given["knn"] > 0.65
    assert "knn" in learned.about["members"]  # type: ignore[operator]
    assert learned.about["not_tried"] == []


def test_who_earns_nothing_is_left_out_unless_it_knows_the_costs() -> None:
    gram_CC = np.eye(6)
    evidence = Evidence(gram_CC, np.array([0.5, 0.01, 0.0, 0.0, 0.02, 0.3]), np.array([3.0, 1.0, 2.0]))
    fold = Fold(
        rows_Q=np.ones(1, np.bool_), base=None, luck_M=np.zeros(1),  # type: ignore[arg-type]
        estimates=dict.fromkeys("abc"), evidence=evidence,  # type: ignore[arg-type]
    )  # fmt: skip
    assert kept([fold], ["a", "b", "c"], has_costs=False) == ["a", "c"]
    assert kept([fold], ["a", "b", "c"], has_costs=True) == ["a", "b", "c"]
    nobody = Fold(
        rows_Q=fold.rows_Q, base=fold.base, luck_M=fold.luck_M, estimates=fold.estimates,
        evidence=Evidence(gram_CC, np.zeros(6), np.zeros(3)),
    )  # fmt: skip
    assert kept([nobody], ["a", "b", "c"], has_costs=False) == ["a"]
    assert triples(Weights(np.array([0.5]), np.array([0.25]), np.array([1.0]))) == ((0.5, 0.25, 1.0),)


def test_the_artifact_decides_the_same_and_is_small(tmp_path: Path) -> None:
    json.dumps(deployment().certificate, allow_nan=False)
    copy = load(save(deployment(), tmp_path))
    assert isinstance(copy, Deployment)
    assert copy.fingerprint == deployment().fingerprint
    queries = WORLD.table.queries[:40]
    assert copy.decide(queries).names_Q == deployment().decide(queries).names_Q
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20e6


@pytest.mark.parametrize("text", [None, " "])
def test_a_table_without_texts_has_nothing_but_means(text: str | None) -> None:
    """Members differ from the means by rounding alone, which must not be weighed."""
    rng = np.random.default_rng(0)
    queries = [Query(id=str(number), text=text) for number in range(100)]
    bare = OutcomeTable(
        queries=queries,
        candidates=[Candidate(model=f"m{j}") for j in range(3)],
        query_index=np.repeat(np.arange(100), 3),
        candidate_index=np.tile(np.arange(3), 100),
        quality=rng.random(300),
    )
    assert len(set(train(bare, Goal()).decide(queries).names_Q)) == 1


def test_progress_counts_up_and_a_seed_repeats() -> None:
    steps: list[tuple[int, int]] = []
    table, _ = world(150, 3)
    first = learn_auto(table, embedder=SMALL, progress=lambda _, done, total: steps.append((done, total)))
    assert steps == [(done, 7) for done in range(7)]
    again = learn_auto(table, embedder=SMALL)
    np.testing.assert_array_equal(first.estimate.quality_QM, again.estimate.quality_QM)


def test_same_texts_share_a_fold_and_too_few_are_refused() -> None:
    table, _ = world(60, 3)
    fold_Q = cut(table, 5, seed=0)
    texts = [query.words for query in table.queries]
    assert all(len({f for f, t in zip(fold_Q.tolist(), texts, strict=True) if t == x}) == 1 for x in texts)
    with pytest.raises(TableError, match="4 groups of queries"):
        train(table.where(np.arange(60) < 4), Goal())


def test_options_that_do_not_go_together_are_refused() -> None:
    table, _ = world(60, 3)
    with pytest.raises(InputError, match="tasks_given"):
        train(table, router="knn", tasks_given=True)
    with pytest.raises(InputError, match="shares"):
        train(table, shares=Shares())
    with pytest.raises(UnknownNameError, match="'auto'"):
        train(table, router=("auto", "knn"))
