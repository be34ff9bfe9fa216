"""More to do scores higher; the scores say something about what models find hard."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.datasets import load
from turnout.features.complexity import code_share, complexity


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("hello!", "What is the capital of France?"),
        (
            "What is 2 + 2?",
            "Prove that there are infinitely many primes, step by step, without using Euler's product.",
        ),
        (
            "Sort this list",
            "Sort this list. Then remove duplicates. Finally, print at most ten, each on a line.",
        ),
        ("Say yes", "def f(x):\n    return g(x) == 1;\nWhy does this function not return?"),
    ],
)
def test_more_work_scores_higher(less: str, more: str) -> None:
    assert 0 <= complexity(less) < complexity(more) <= 1


def test_it_says_something_about_what_models_find_hard() -> None:
    """The rank of the score tells hard questions from easy ones better than chance, on real outcomes."""
    table = load("reason18")
    quality_Q = np.nanmean(table.quality_QM, axis=1)
    score_Q = np.array([complexity(query.words) for query in table.queries])
    is_hard_Q = quality_Q < np.median(quality_Q)
    ranks_Q = score_Q.argsort().argsort()
    hard, easy = is_hard_Q.sum(), (~is_hard_Q).sum()
    area = (ranks_Q[is_hard_Q].sum() - hard * (hard - 1) / 2) / (hard * easy)
    assert area > 0.7


def test_code_is_told_from_prose() -> None:
    assert code_share("def f(x):\n    return x == 1;") > 0.1
    assert code_share("Please write a poem about the sea and the sky.") == 0
