"""The synthetic world is what it says: its truth is the mean of its samples, and its optimum is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core import InputError, UnknownNameError
from turnout.datasets import SyntheticWorld, synthetic
from turnout.datasets.synthetic import Noise

SIZES = st.fixed_dictionaries(
    {
        "num_queries": st.integers(1, 40),
        "num_candidates": st.integers(1, 9),
        "num_topics": st.integers(1, 10),
        "num_samples": st.integers(1, 3),
        "fill": st.floats(0.01, 1.0),
        "mean_words": st.integers(1, 30),
        "noise": st.sampled_from(["binary", "graded", "exact"]),
        "test_share": st.floats(0.0, 0.9),
        "seed": st.integers(0, 2**32),
    }
)


@settings(max_examples=40)
@given(SIZES)
def test_any_sizes_give_a_sound_world(sizes: dict[str, object]) -> None:
    world = synthetic(**sizes)  # type: ignore[arg-type]
    table = world.table
    shape = (sizes["num_queries"], sizes["num_candidates"])
    assert (
        (len(table.queries), len(table.candidates))
        == world.quality_QM.shape
        == world.cost_usd_QM.shape
        == shape
    )
    assert table.observed_QM.any(axis=1).all()
    assert table.sample.max() == sizes["num_samples"] - 1  # type: ignore[operator]
    assert (world.quality_QM >= 0.02).all()
    assert (world.quality_QM <= 0.98).all()
    assert (world.cost_usd_QM > 0).all()
    assert table.splits.count("test") == round(sizes["test_share"] * len(table.queries))  # type: ignore[operator]
    assert np.isfinite(table.quality).all()


@settings(max_examples=40)
@given(SIZES)
def test_the_same_arguments_give_the_same_world(sizes: dict[str, object]) -> None:
    first, second = synthetic(**sizes), synthetic(**sizes)  # type: ignore[arg-type]
    assert first.table.fingerprint == second.table.fingerprint
    assert np.array_equal(first.quality_QM, second.quality_QM)


def test_another_seed_gives_another_world() -> None:
    assert (
        synthetic(num_queries=20, seed=1).table.fingerprint
        != synthetic(num_queries=20, seed=2).table.fingerprint
    )


@pytest.mark.parametrize("noise", ["binary", "graded", "exact"])
def test_samples_scatter_around_the_truth(noise: Noise) -> None:
    world = synthetic(num_queries=40, num_candidates=4, num_samples=400, noise=noise, seed=5)
    spread_QM = np.sqrt(world.quality_QM * (1 - world.quality_QM) / 400)
    # 160 cells: five standard errors are passed by chance once in ten thousand runs.
    assert (np.abs(world.table.quality_QM - world.quality_QM) <= 5 * spread_QM + 1e-12).all()
    assert world.table.cost_usd_QM == pytest.approx(world.cost_usd_QM, rel=0.05)


def test_costs_follow_the_price_cards() -> None:
    table = synthetic(num_queries=30, seed=1).table
    for row in range(table.num_rows):
        card = table.candidates[table.candidate_index[row]].price_card
        assert card is not None
        usd = card.usd(input_tokens=table.input_tokens[row], output_tokens=table.output_tokens[row])
        assert table.cost_usd[row] == pytest.approx(usd, rel=1e-12)


def test_input_tokens_count_the_words() -> None:
    table = synthetic(num_queries=30).table
    words = [len(table.queries[q].words.split()) for q in table.query_index]
    assert table.input_tokens.tolist() == words


@settings(max_examples=40)
@given(st.floats(0.0, 1e7), st.integers(0, 5), st.randoms(use_true_random=False))
def test_no_choice_beats_the_optimum(price: float, seed: int, random: object) -> None:
    world = synthetic(num_queries=25, num_candidates=5, seed=seed)
    best = world.optimum(price)
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    for _ in range(20):
        quality, cost_usd = world.worth_of(rng.integers(0, 5, size=25))
        assert quality - price * cost_usd <= best.value + 1e-9 * max(1.0, abs(best.value))
    quality, cost_usd = world.worth_of(best.choice_Q)
    assert (quality, cost_usd) == (best.quality, best.cost_usd)


@settings(max_examples=40)
@given(st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_a_higher_price_buys_less(low: float, high: float) -> None:
    low, high = sorted((low, high))
    world = synthetic(num_queries=60, seed=4)
    cheap, dear = world.optimum(low), world.optimum(high)
    assert dear.cost_usd <= cheap.cost_usd + 1e-12
    assert dear.quality <= cheap.quality + 1e-12
    assert dear.value <= cheap.value + 1e-12


def test_the_optimum_at_price_zero_is_the_best_quality() -> None:
    world = synthetic()
    best = world.optimum(0.0)
    assert best.value == best.quality == pytest.approx(world.quality_QM.max(axis=1).mean())
    assert best.quality > world.quality_QM.mean(axis=0).max() + 0.03


def test_an_optimum_of_one_split_counts_its_queries_only() -> None:
    world = synthetic(num_queries=100)
    is_test = np.array([split == "test" for split in world.table.splits])
    best = world.optimum(50.0, split="test")
    assert best.choice_Q.shape == (30,)
    score_QM = world.quality_QM[is_test] - 50.0 * world.cost_usd_QM[is_test]
    assert best.value == pytest.approx(score_QM.max(axis=1).mean())


def test_fill_is_the_share_of_pairs_that_were_run() -> None:
    world = synthetic(num_queries=500, num_candidates=20, fill=0.25)
    assert world.table.observed_QM.mean() == pytest.approx(0.25, abs=0.02)


def test_words_tell_topic_and_difficulty() -> None:
    """Naive Bayes on the words of the train part finds the topic of nearly every test query."""
    world = synthetic(num_queries=800, seed=2)
    texts = [set(query.words.split()) for query in world.table.queries]
    is_train = np.array([split == "train" for split in world.table.splits])
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*texts)))}
    has_QW = np.zeros((800, len(vocabulary)))
    for row, words in enumerate(texts):
        has_QW[row, [vocabulary[word] for word in words]] = 1.0
    counts = np.stack([has_QW[is_train & (world.topic_Q == topic)].sum(axis=0) for topic in range(8)])
    weight = np.log((counts + 0.1) / (counts.sum(axis=1, keepdims=True) + 0.1))
    guess = (has_QW[~is_train] @ weight.T).argmax(axis=1)
    assert (guess == world.topic_Q[~is_train]).mean() > 0.98
    # Hard words: the ones that stand more often in hard texts of the train part.
    lift = has_QW[is_train].T @ (world.difficulty_Q[is_train] - 0.5)
    score = has_QW[~is_train] @ lift
    assert np.corrcoef(score, world.difficulty_Q[~is_train])[0, 1] > 0.6


def test_texts_come_in_several_scripts() -> None:
    letters = "".join(query.words for query in synthetic(num_queries=300).table.queries)
    for first, last in (("a", "z"), ("\u0430", "\u044f"), ("\u4e00", "\u9fa5"), ("\u0628", "\u063a")):
        assert any(first <= letter <= last for letter in letters)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"num_queries": 0}, "synthetic: num_queries; allowed: a whole number of at least 1; got: 0"),
        ({"num_candidates": 2.5}, "synthetic: num_candidates"),
        ({"fill": 0.0}, r"synthetic: fill; allowed: a number in \(0, 1\]; got: 0.0"),
        ({"fill": 1.5}, "synthetic: fill"),
        ({"test_share": 1.0}, r"synthetic: test_share; allowed: a number in \[0, 1\); got: 1.0"),
        ({"num_samples": True}, "synthetic: num_samples"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], parts: str) -> None:
    with pytest.raises(InputError, match=parts):
        synthetic(**arguments)  # type: ignore[arg-type]


def test_wrong_words_are_named() -> None:
    with pytest.raises(UnknownNameError, match="'binary'"):
        synthetic(noise="binry")  # type: ignore[arg-type]
    world: SyntheticWorld = synthetic(num_queries=3)
    with pytest.raises(UnknownNameError, match="'test'"):
        world.optimum(1.0, split="tests")
    for price in (-1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"optimum: price; allowed: a number in \[0, inf\)"):
            world.optimum(price)


def test_a_large_world_is_made_in_seconds() -> None:
    world = synthetic(num_queries=20_000, num_candidates=50, fill=0.1)
    assert world.table.num_rows == pytest.approx(100_000, rel=0.02)
