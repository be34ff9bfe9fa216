"""Folds: texts that are alike stay together, and their order decides nothing."""

from __future__ import annotations

import numpy as np

from tests.routers.tables import real_table
from turnout.core.query import Query
from turnout.routers.folds import fold_of


def test_folds_are_even_and_do_not_depend_on_the_order() -> None:
    queries = real_table().queries
    fold_Q = fold_of(queries, 4)
    sizes = np.bincount(fold_Q)
    assert sizes.max() - sizes.min() <= 3
    order = np.random.default_rng(0).permutation(len(queries))
    assert (fold_of([queries[i] for i in order], 4) == fold_Q[order]).all()
    assert (fold_of(queries, 4, seed=1) != fold_Q).any()


def test_texts_that_differ_in_case_or_signs_alone_share_a_fold() -> None:
    texts = [f"What is {number} plus {number}?" for number in range(30)]
    loud = [f"what IS {number}, plus: {number}" for number in range(30)]
    queries = [Query(id=str(i), text=text) for i, text in enumerate([*texts, *loud])]
    fold_Q = fold_of(queries, 3)
    assert (fold_Q[:30] == fold_Q[30:]).all()
    assert len(set(fold_Q.tolist())) == 3
    assert fold_of([Query(id="a", text=None), Query(id="b", text="")], 3).tolist() == [0, 0]
