"""This module makes outcome tables whose best policy is known exactly.

Each query has a latent topic and a difficulty, which its words tell (`wordsoup`); each candidate has a skill
per topic and a tariff. Expected quality and cost are written down before anything is sampled, so that the
value of the best possible choice at any price is a sum, not an estimate:

    quality_QM = sigmoid(8 (skill_MZ[m, z_q] - difficulty_q)),   clipped to [0.02, 0.98]
    cost_usd_QM = tariff_m(input words_q, verbosity_m (40 + 260 difficulty_q))
    value(price) = mean over q of max over m of (quality_QM - price cost_usd_QM)
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_choice, check_count, check_number
from turnout.datasets.wordsoup import write_texts
from turnout.datasets.world import Floats, Ints, SyntheticWorld

Noise = Literal["binary", "graded", "exact"]

_GRADED_WEIGHT = 6.0
_TOKENS_PER_SECOND = 60.0


def synthetic(
    *,
    num_queries: int = 2000,
    num_candidates: int = 6,
    num_topics: int = 8,
    fill: float = 1.0,
    num_samples: int = 1,
    mean_words: int = 24,
    noise: Noise = "binary",
    test_share: float = 0.3,
    seed: int = 0,
) -> SyntheticWorld:
    """Make a table with a known optimum.

    Parameters
    ----------
    num_queries, num_candidates, num_topics:
        Sizes, at least 1.
    fill:
        Share of the (query, candidate) pairs that were run, in (0, 1]; every query has at least one.
    num_samples:
        Repetitions of each pair that was run.
    mean_words:
        Words of a text, give or take a half.
    noise:
        How quality is observed: `binary` (right or wrong), `graded` (beta with the true mean), or `exact`.
    test_share:
        Share of the queries in the split `test`, in [0, 1); the others are in `train`.
    seed:
        The same seed and sizes give the same world in every process.
    """
    _check_sizes(
        num_queries=num_queries,
        num_candidates=num_candidates,
        num_topics=num_topics,
        num_samples=num_samples,
        mean_words=mean_words,
    )
    _check_shares(fill, test_share, noise)
    rng = make_rng(seed, "synthetic", "world")
    topic_Q = rng.integers(0, num_topics, size=num_queries)
    difficulty_Q = rng.random(num_queries)
    texts = write_texts(topic_Q, difficulty_Q, num_topics=num_topics, mean_words=mean_words, seed=seed)
    words_Q = np.array([text.count(" ") + 1 for text in texts])
    candidates, skill_MZ, verbosity_M = _make_candidates(num_candidates, num_topics, rng)
    tokens_QM = np.outer(40.0 + 260.0 * difficulty_Q, verbosity_M)
    quality_QM = _true_quality(skill_MZ[:, topic_Q].T, difficulty_Q)
    rows = _pick_rows(num_queries, num_candidates, fill, num_samples, make_rng(seed, "synthetic", "fill"))
    noise_rng = make_rng(seed, "synthetic", noise)
    observed: dict[str, Any] = _observe(rows, quality_QM, tokens_QM, words_Q, candidates, noise, noise_rng)
    queries = [Query(id=f"q{i}", text=text, task=f"topic{topic_Q[i]}") for i, text in enumerate(texts)]
    splits = _split_names(num_queries, test_share, make_rng(seed, "synthetic", "split"))
    return SyntheticWorld(
        table=OutcomeTable(queries=queries, candidates=candidates, splits=splits, **observed),
        quality_QM=quality_QM,
        cost_usd_QM=_usd(candidates, words_Q[:, None], tokens_QM),
        topic_Q=topic_Q,
        difficulty_Q=difficulty_Q,
    )


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_count(f"synthetic: {name}", size)


def _check_shares(fill: float, test_share: float, noise: str) -> None:
    check_number("synthetic: fill", fill, low=0.0, high=1.0, allow_low=False)
    check_number("synthetic: test_share", test_share, low=0.0, high=1.0, allow_high=False)
    check_choice("synthetic: noise", noise, ("binary", "graded", "exact"))


def _make_candidates(
    num_candidates: int, num_topics: int, rng: np.random.Generator
) -> tuple[list[Candidate], Floats, Floats]:
    """Dearer candidates are better on the whole, and each has topics of its own."""
    rank_M = np.linspace(0.0, 1.0, num_candidates) if num_candidates > 1 else np.array([0.5])
    skill_MZ = 0.35 + 0.4 * rank_M[:, None] + rng.normal(0.0, 0.2, size=(num_candidates, num_topics))
    verbosity_M = rng.uniform(0.6, 1.6, size=num_candidates)
    candidates = [
        Candidate(
            model=f"model{index}",
            price_card=PriceCard(input_usd_per_mtok=usd, output_usd_per_mtok=4 * usd),
            context_tokens=32768,
        )
        for index, usd in enumerate((0.1 * 100.0**rank_M).tolist())
    ]
    return candidates, skill_MZ, verbosity_M


def _true_quality(skill_QM: Floats, difficulty_Q: Floats) -> Floats:
    sigmoid_QM = 1.0 / (1.0 + np.exp(-8.0 * (skill_QM - difficulty_Q[:, None])))
    return np.clip(sigmoid_QM, 0.02, 0.98)


def _usd(candidates: list[Candidate], input_tokens: Ints, output_tokens: Floats) -> Floats:
    cards = [candidate.price_card for candidate in candidates]
    input_M = np.array([card.input_usd_per_mtok for card in cards if card])
    output_M = np.array([card.output_usd_per_mtok for card in cards if card])
    usd: Floats = (input_tokens * input_M + output_tokens * output_M) / 1e6
    return usd


def _pick_rows(
    num_queries: int, num_candidates: int, fill: float, num_samples: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    was_run_QM = rng.random((num_queries, num_candidates)) < fill
    empty = np.flatnonzero(~was_run_QM.any(axis=1))
    was_run_QM[empty, rng.integers(0, num_candidates, size=empty.size)] = True
    query, candidate = np.nonzero(was_run_QM)
    sample = np.tile(np.arange(num_samples), query.size)
    return np.repeat(query, num_samples), np.repeat(candidate, num_samples), sample


def _split_names(num_queries: int, test_share: float, rng: np.random.Generator) -> list[str]:
    is_test = np.zeros(num_queries, np.bool_)
    is_test[rng.permutation(num_queries)[: round(test_share * num_queries)]] = True
    return ["test" if test else "train" for test in is_test]


def _observe(
    rows: tuple[Ints, Ints, Ints],
    quality_QM: Floats,
    tokens_QM: Floats,
    words_Q: Ints,
    candidates: list[Candidate],
    noise: Noise,
    rng: np.random.Generator,
) -> dict[str, npt.NDArray[np.generic]]:
    """Sample the rows: Poisson output tokens (so that the expected cost is exact) and noisy quality."""
    query, candidate, sample = rows
    truth = quality_QM[query, candidate]
    output_tokens = rng.poisson(tokens_QM[query, candidate]).astype(np.float64)
    cards = [c.price_card for c in candidates]
    input_usd = np.array([card.input_usd_per_mtok for card in cards if card])[candidate]
    output_usd = np.array([card.output_usd_per_mtok for card in cards if card])[candidate]
    return {
        "query_index": query,
        "candidate_index": candidate,
        "sample": sample,
        "quality": _add_noise(truth, noise, rng),
        "cost_usd": (words_Q[query] * input_usd + output_tokens * output_usd) / 1e6,
        "input_tokens": words_Q[query].astype(np.float64),
        "output_tokens": output_tokens,
        "latency_s": 0.2 + output_tokens / _TOKENS_PER_SECOND,
    }


def _add_noise(truth: Floats, noise: Noise, rng: np.random.Generator) -> Floats:
    if noise == "exact":
        return truth
    if noise == "graded":
        return rng.beta(truth * _GRADED_WEIGHT, (1.0 - truth) * _GRADED_WEIGHT)
    return (rng.random(truth.size) < truth).astype(np.float64)
