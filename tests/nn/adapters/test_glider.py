from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import InputError, NotFittedError
from turnout.nn.adapters import AdapterPool, GliderRouter, PhatgooseRouter

IDS = helpers.tokens(rows=3)
VECTORS = torch.eye(6)


def out(pool: AdapterPool, router: GliderRouter | PhatgooseRouter, **known: Any) -> torch.Tensor:
    with pool.routed(router=router, **known):
        return helpers.logits(pool, IDS)


@pytest.mark.parametrize("choice", [{"top_k": 1}, {"top_k": 2}, {"top_k": None, "top_p": 0.6}])
def test_scale_zero_is_phatgoose_bit_for_bit(choice: dict) -> None:
    pool = helpers.pool()
    assert torch.equal(
        out(pool, GliderRouter(alpha=0.0, **choice), queries=VECTORS[[0, 1, 2]]),
        out(pool, PhatgooseRouter(**choice)),
    )
    assert not torch.equal(
        out(pool, GliderRouter(alpha=3.0, **choice), queries=VECTORS[[0, 1, 2]]),
        out(pool, PhatgooseRouter(**choice)),
    )


@pytest.mark.parametrize("choice", [{"top_k": 1}, {"top_k": 3}, {"top_k": None, "top_p": 0.9}])
def test_a_boundless_scale_with_the_true_vector_is_the_oracle(choice: dict) -> None:
    pool = helpers.pool()
    glider = out(pool, GliderRouter(alpha=1e6, **choice), queries=VECTORS[[2, 0, 1]])
    with pool.only(["c", "a", "b"]):
        oracle = helpers.logits(pool, IDS)
    torch.testing.assert_close(glider, oracle, rtol=1e-4, atol=1e-4)
    with pool.only(["a", "b", "c"]):
        assert (helpers.logits(pool, IDS) - glider).abs().max() > 1e-2


def test_queries_belong_to_items_and_move_with_them() -> None:
    pool, order = helpers.pool(), [2, 0, 1]
    queries = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    straight = out(pool, GliderRouter(alpha=3.0), queries=queries)
    with pool.routed(router=GliderRouter(alpha=3.0), queries=queries[order]):
        permuted = helpers.logits(pool, IDS[order])
    torch.testing.assert_close(permuted, straight[order], rtol=1e-5, atol=1e-5)


def test_the_length_of_a_vector_does_not_count() -> None:
    pool = helpers.pool()
    router, queries = GliderRouter(alpha=3.0), VECTORS[[0, 1, 2]]
    torch.testing.assert_close(out(pool, router, queries=queries * 40), out(pool, router, queries=queries))


def test_one_vector_serves_a_batch() -> None:
    pool = helpers.pool()
    router = GliderRouter(alpha=3.0)
    torch.testing.assert_close(
        out(pool, router, queries=VECTORS[[1]]), out(pool, router, queries=VECTORS[[1, 1, 1]])
    )


def test_vectors_that_lack_or_do_not_fit_are_refused() -> None:
    pool = helpers.pool()
    router = GliderRouter(alpha=3.0)
    with pytest.raises(NotFittedError, match="vectors of the queries"):
        out(pool, router)
    with pytest.raises(InputError, match=r"allowed: 2 items.*got: \(3, 9, 32\)"):
        out(pool, router, queries=VECTORS[[0, 1]])
    with pytest.raises(InputError, match=r"width.*allowed: 6; got: 4"):
        out(pool, router, queries=torch.ones(3, 4))
    with pytest.raises(InputError, match="finite"):
        out(pool, router, queries=torch.full((3, 6), torch.nan))
    with pytest.raises(InputError, match=r"width.*allowed: 6; got: 2"):
        pool.describe("a", [1.0, 2.0])
    pool.add(helpers.lora("d", seed=3))
    pool.set_gate("d", helpers.gates(3))
    with pytest.raises(NotFittedError, match="vectors of every adapter"):
        out(pool, router, queries=VECTORS[[0, 1, 2]])


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), 1e13])
def test_a_scale_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha; allowed: .*\[0, 1e\+12\]"):
        GliderRouter(alpha=alpha)


def test_texts_become_vectors_through_any_encoder() -> None:
    pool = helpers.pool()
    letters = "abcdef"
    pool.describe_texts(
        {name: name * 3 for name in pool.names}, lambda texts: [[t.count(c) for c in letters] for t in texts]
    )
    vector = pool.vector("b")
    assert vector is not None
    assert vector.tolist() == [0.0, 3.0, 0.0, 0.0, 0.0, 0.0]
