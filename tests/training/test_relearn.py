"""A deployment learned from a log whose chances, and whose truth, are known."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Candidate, Goal, OutcomeTable, PriceCard, Query
from turnout.core.errors import InputError, TableError
from turnout.core.estimate import make_estimate
from turnout.policies.pairs import measure_pairs
from turnout.training import retrain
from turnout.training.log import by_chance, completed, judgeable, means_of
from turnout.training.train import train

NAMES = ("large", "small", "tiny")
USD = {"large": 4e-4, "small": 1e-4, "tiny": 2e-5}
# Hard questions are hard for everybody; on easy ones the small one is as good as the large one.
TRUTH = {("hard", "large"): 0.45, ("hard", "small"): 0.25, ("hard", "tiny"): 0.1}
TRUTH |= {("easy", "large"): 0.95, ("easy", "small"): 0.9, ("easy", "tiny"): 0.4}
WORDS = {"hard": ("integral", "proof", "theorem", "lemma"), "easy": ("hello", "thanks", "weather", "name")}


def make_log(
    num: int = 1200, *, chance: float = 0.3, seed: int = 0, never: str | None = None
) -> OutcomeTable:
    """Return a log that asks `large` for what is hard and `tiny` for what is easy, but for some chance.

    So the plain mean of `large` is too low: it was asked what is hard.
    """
    rng = np.random.default_rng(seed)
    queries, chosen, propensity, quality = [], [], [], []
    open_names = [name for name in NAMES if name != never]
    for number in range(num):
        kind = "hard" if rng.random() < 0.5 else "easy"
        words = rng.choice(WORDS[kind], size=4)
        queries.append(Query(id=f"d{number}", text=f"{' '.join(words)} {rng.integers(10**6)}"))
        own = "large" if kind == "hard" else "tiny"
        if never == own:
            own = "small"
        name = str(rng.choice(open_names)) if rng.random() < chance else own
        chosen.append(NAMES.index(name))
        propensity.append((1 - chance) * (name == own) + chance / len(open_names))
        quality.append(float(rng.random() < TRUTH[kind, name]))
    names = [NAMES[column] for column in chosen]
    return OutcomeTable(
        queries=queries,
        candidates=[Candidate(model=name) for name in NAMES],
        query_index=np.arange(num),
        candidate_index=chosen,
        quality=quality,
        cost_usd=[USD[name] * rng.uniform(0.9, 1.1) for name in names],
        extras={"propensity": propensity, "chosen": names},
    )


def test_the_completion_is_unbiased_where_a_plain_mean_is_not() -> None:
    wrong, wrong_usd = [], []
    for seed in range(12):
        log = make_log(800, seed=seed)
        plain_M = np.nanmean(log.quality_QM, axis=0)
        assert plain_M[0] < 0.6 < 0.7  # the truth
        # A model that knows nothing but a constant.
        estimate = make_estimate(
            log.candidates,
            np.full((800, 3), 0.5),
            cost_usd_QM=np.full((800, 3), 1e-4),
        )
        quality_QM, usd_QM = completed(log, estimate)
        mean_M = quality_QM.mean(axis=0)
        truth_M = np.array([np.mean([TRUTH[kind, name] for kind in WORDS]) for name in NAMES])
        wrong.append(mean_M - truth_M)
        error_M = quality_QM.std(axis=0, ddof=1) / np.sqrt(800)
        assert (np.abs(wrong[-1]) < 4 * error_M).all()
        wrong_usd.append(usd_QM.mean(axis=0) - [USD[name] for name in NAMES])
        # What the fallback learns from are these means.
        means = means_of((quality_QM, usd_QM), log)
        assert means.quality_QM[0] == pytest.approx(np.clip(mean_M, 0, 1))
    assert np.abs(np.mean(wrong, axis=0)).max() < 0.03
    assert np.abs(np.mean(wrong_usd, axis=0)).max() < 2e-5


def test_a_promise_from_a_log_is_kept_on_the_truth() -> None:
    goal = Goal(quality_floor=0.9)
    deployment = retrain(make_log(1500, seed=3), goal, router="ridge")
    assert deployment.certificate["best_single"] == "large"
    plan = deployment.plan()
    fresh = make_log(1000, seed=77)
    kinds = [
        "hard" if any(word in query.words for word in WORDS["hard"]) else "easy" for query in fresh.queries
    ]
    decisions = deployment.decide(fresh.queries)
    names = [decisions[row].candidate.name for row in range(1000)]  # type: ignore[union-attr]
    quality = float(np.mean([TRUTH[kind, name] for kind, name in zip(kinds, names, strict=True)]))
    usd = float(np.mean([USD[name] for name in names]))
    if plan.is_kept:
        assert quality >= 0.9 * 0.7 - 0.03
    assert plan.quality == pytest.approx(quality, abs=0.1)
    assert plan.usd_per_1k == pytest.approx(usd * 1000, rel=0.35)
    told = deployment.certificate["log"]
    assert told["scored"] == told["by_chance"] == 1500  # type: ignore[index]


def test_a_log_says_where_its_own_measure_of_a_single_model_differs() -> None:
    """By recorded rows alone, an option and a single model are never seen on one query."""
    log = make_log(600)
    quality_MQ, usd_MQ = log.quality_QM.T, log.cost_usd_QM.T
    apart = measure_pairs(quality_MQ[:1], usd_MQ[:1], quality_MQ[1:], usd_MQ[1:])
    assert apart.quality(0, 0).count == 0
    assert not apart.quality(0, 0).low(0.95) > -1.0
    deployment = train(log, Goal(usd_per_quality=0.01), router="ridge", is_log=True)
    assert deployment.frontier is not None
    assert deployment.frontier.best == 0


def test_a_candidate_that_was_hardly_tried_is_left_out_and_named() -> None:
    log = make_log(900, never="small")
    part, notes = judgeable(log)
    assert part.names == ("large", "tiny")
    assert "'small' is left out: 0 scored answers by chance" in notes[0]
    deployment = retrain(log, Goal(usd_per_quality=0.001), router="ridge")
    assert [candidate.name for candidate in deployment.candidates] == ["large", "tiny"]
    assert any("'small'" in str(note) for note in deployment.certificate["notes"])  # type: ignore[attr-defined]


def test_a_candidate_without_a_chance_on_some_requests_is_left_out() -> None:
    log = make_log(1200)
    # Where a question is easy, `large` never had a chance: its rows there go.
    keep = [
        not (name == "large" and "hello" in query.words) for name, query in
        zip(log.extras["chosen"], log.queries, strict=True)
    ]  # fmt: skip
    _, notes = judgeable(log.where(np.array(keep)))
    assert notes == () or all("large" in note for note in notes)
    easy = np.array([any(word in query.words for word in WORDS["easy"]) for query in log.queries])
    large = np.array([name == "large" for name in log.extras["chosen"]])
    _, notes = judgeable(log.where(~(easy & large)))
    assert "'large' is left out: it had a chance on at most" in notes[0]


def test_the_pool_in_force_describes_the_candidates() -> None:
    card = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    pool = [Candidate(model="large", price_card=card), Candidate(model="tiny", context_tokens=100)]
    deployment = retrain(make_log(1200), Goal(usd_per_quality=0.001), candidates=pool, router="ridge")
    assert [candidate.price_card for candidate in deployment.candidates] == [card, None]
    assert deployment.candidates[1].context_tokens == 100
    with pytest.raises(TableError, match="no answer of the pool"):
        retrain(make_log(300), candidates=[Candidate(model="other")])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"propensity": [1.0] * 400}, "routing.explore_share"),
        ({"propensity": [None] * 400}, "routing.explore_share"),
        ({"propensity": [0.5] * 400, "chosen": ["else"] * 400}, "routing.explore_share"),
    ],
)
def test_a_log_without_chance_promises_nothing(change: dict[str, list[object]], part: str) -> None:
    log = make_log(400).with_extras(change)
    with pytest.raises(TableError, match=part):
        retrain(log)


def test_too_few_scores_and_missing_texts_are_told_apart() -> None:
    with pytest.raises(TableError, match="collect more feedback"):
        retrain(make_log(150))
    log = make_log(400)
    silent = OutcomeTable(
        queries=[Query(id=query.id, text=None) for query in log.queries],
        candidates=log.candidates,
        query_index=log.query_index,
        candidate_index=log.candidate_index,
        quality=log.quality,
        extras={name: list(values) for name, values in log.extras.items()},
    )
    with pytest.raises(TableError, match=r"ledger\.keep_text"):
        retrain(silent)


def test_a_table_that_is_no_log_is_refused() -> None:
    log = make_log(60)
    plain = OutcomeTable(
        queries=log.queries,
        candidates=log.candidates,
        query_index=log.query_index,
        candidate_index=log.candidate_index,
        quality=log.quality,
    )
    with pytest.raises(TableError, match="no log"):
        by_chance(plain)
    with pytest.raises(InputError, match="cannot select"):
        train(log, router=("ridge", "knn"), is_log=True)
