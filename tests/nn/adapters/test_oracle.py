from __future__ import annotations

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import InputError, UnknownNameError
from turnout.nn.adapters import OracleAdapter


def test_each_item_has_its_own_adapter_and_none_is_the_base() -> None:
    pool, ids = helpers.pool(), helpers.tokens()
    with pool.routed(router=OracleAdapter(), tasks=["b", None, "a"]):
        mixed = helpers.logits(pool, ids)
    for row, name in enumerate(("b", None, "a")):
        with pool.none() if name is None else pool.only(name):
            alone = helpers.logits(pool, ids)
        torch.testing.assert_close(mixed[row], alone[row], rtol=1e-5, atol=1e-6)


def test_all_items_may_ask_for_the_base() -> None:
    pool, ids = helpers.pool(), helpers.tokens()
    with pool.only([None, None, None]):
        torch.testing.assert_close(helpers.logits(pool, ids), helpers.base()(ids).logits)


def test_tasks_that_lack_or_are_unknown_are_refused() -> None:
    pool, ids = helpers.pool(), helpers.tokens()
    with pool.routed(router=OracleAdapter()), pytest.raises(InputError, match="one for each item"):
        helpers.logits(pool, ids)
    with (
        pool.routed(router=OracleAdapter(), tasks=["a", "z", "a"]),
        pytest.raises(UnknownNameError, match="'z'"),
    ):
        helpers.logits(pool, ids)
    with pool.only(["a", "b"]), pytest.raises(InputError, match="2 items"):
        helpers.logits(pool, ids)
    with pytest.raises(UnknownNameError, match="'z'"):
        pool.only(["a", "z"])
