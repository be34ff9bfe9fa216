from __future__ import annotations

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import InputError, UnknownNameError
from turnout.nn.adapters import AdapterPool, SingleAdapter, best_single


def test_one_adapter_of_many_equals_a_pool_of_it_alone() -> None:
    pool, alone, ids = helpers.pool(), helpers.pool(("b",)), helpers.tokens()
    pool.router = alone.router = SingleAdapter(name="b")
    torch.testing.assert_close(helpers.logits(pool, ids), helpers.logits(alone, ids), rtol=1e-6, atol=1e-6)


def test_the_best_is_the_first_with_the_largest_score() -> None:
    pool, ids = helpers.pool(), helpers.tokens()
    with pool.only("b"):
        wanted = helpers.logits(pool, ids)
    router = best_single(pool, lambda: -float((helpers.logits(pool, ids) - wanted).abs().sum()))
    assert router.name == "b"
    assert best_single(pool, lambda: 1.0).name == "a"


def test_unknown_and_empty_are_refused() -> None:
    pool = helpers.pool()
    pool.router = SingleAdapter(name="bb")
    with pytest.raises(UnknownNameError, match="no adapter of the pool is called 'bb'; did you mean 'b'"):
        helpers.logits(pool, helpers.tokens())
    with pytest.raises(InputError, match="at least one"):
        best_single(AdapterPool(model=helpers.base()), lambda: 0.0)


def test_a_score_that_is_no_number_is_refused() -> None:
    scores = iter([1.0, float("nan"), 2.0])
    with pytest.raises(InputError, match="score of 'b'; allowed: a number; got: nan"):
        best_single(helpers.pool(), lambda: next(scores))
