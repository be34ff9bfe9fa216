from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.nn.adapters import helpers
from tests.nn.given import NAME, given
from turnout.core.errors import InputError
from turnout.nn.adapters import AdapterPool, GliderRouter, PhatgooseRouter
from turnout.nn.depth import FixedDepth, RoutedDepth

IDS = helpers.tokens()
ONE = IDS[:1]
VECTORS = torch.eye(6)
REFUSED = "keys that were made under another routing; go on under the route"


def filled(pool: AdapterPool, ids_BT: torch.Tensor = ONE) -> DynamicCache:
    """Return a cache that the pool's model filled now."""
    cache = DynamicCache()
    pool.model(ids_BT, **given(cache), use_cache=True)
    return cache


def extend(pool: AdapterPool, cache: Any, ids_BT: torch.Tensor = ONE) -> Any:
    """Read one more token into a cache."""
    return pool.model(ids_BT[:, :1], **given(cache), use_cache=True)


@torch.no_grad()
def test_a_cache_of_one_adapter_is_refused_under_another_and_as_the_base() -> None:
    pool = helpers.pool()
    with pool.only("a"):
        cache = filled(pool)
        made_inside = pool.model(ONE, use_cache=True)[NAME]
    with pool.only("b"), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)
    for kept in (cache, made_inside, copy.deepcopy(cache)):
        with pytest.raises(InputError, match=REFUSED):
            extend(pool, kept)
        with pool.only("a"):
            extend(pool, kept)
    with pytest.raises(InputError, match=REFUSED):
        pool.model.get_submodule("model")(ONE[:, :1], **given(cache))
    cache.crop(-cache.get_seq_length())
    extend(pool, cache)


def test_a_cache_of_the_base_goes_on_as_the_base_alone() -> None:
    before = helpers.base()
    cache = DynamicCache()
    before(ONE, **given(cache))
    pool = AdapterPool(model=before)
    pool.add(helpers.lora("a"))
    extend(pool, cache)
    with pool.only("a"), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)
    with pool.none():
        extend(pool, cache)
    pool.close()
    assert not before.model._forward_pre_hooks
    assert not before.model._forward_hooks


def test_equal_routers_share_a_cache_and_others_do_not() -> None:
    pool = helpers.pool()
    with pool.routed(router=PhatgooseRouter(top_k=1)):
        cache = filled(pool)
    with pool.routed(router=PhatgooseRouter(top_k=1)):
        extend(pool, cache)
    with pool.routed(router=PhatgooseRouter(top_k=2)), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)
    pool.set_gate("a", helpers.gates(7))
    with pool.routed(router=PhatgooseRouter(top_k=1)), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)


def test_another_adapter_of_the_same_name_is_another() -> None:
    pool = helpers.pool()
    with pool.only("a"):
        cache = filled(pool)
    pool.add(helpers.lora("d"))
    with pool.only("a"):
        extend(pool, cache)
    pool.remove("a")
    pool.add(helpers.lora("a", seed=5))
    with pool.only("a"), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)


def test_rows_keep_their_own_routes() -> None:
    pool = helpers.pool()
    with pool.only(["a", None, "b"]):
        cache = filled(pool, IDS)
    with pool.only([None, "a", "b"]), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache, IDS)
    with pool.only(["a"]), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache, IDS)
    rows = torch.tensor([0, 2])
    cache.batch_select_indices(rows)
    with pool.only(["a", "b"]):
        extend(pool, cache, IDS[rows])
    with pool.routed(router=GliderRouter(), queries=VECTORS[:3]):
        cache = filled(pool, IDS)
    with pool.routed(router=GliderRouter(), queries=VECTORS[:3]):
        extend(pool, cache, IDS)
    with pool.routed(router=GliderRouter(), queries=VECTORS[1:4]), pytest.raises(InputError, match=REFUSED):
        extend(pool, cache, IDS)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 2},
        {"prompt_lookup_num_tokens": 2},
        {"assisted": True},
    ],
    ids=str,
)
def test_generation_goes_on_as_before(options: dict[str, Any]) -> None:
    pool = helpers.pool()
    if options.pop("assisted", False):
        options["assistant_model"] = helpers.base()
    found = pool.generate(
        ONE,
        router=GliderRouter(),
        queries=VECTORS[:1],
        max_new_tokens=5,
        return_dict_in_generate=True,
        **options,
    )
    with pytest.raises(InputError, match=REFUSED):
        extend(pool, found[NAME], found.sequences)


def test_caches_of_a_depth_router_remember_the_adapter_too() -> None:
    pool = helpers.pool()
    RoutedDepth(model=pool.model, router=FixedDepth(counts=[2, 1]))
    with pool.only("a"):
        cache = filled(pool)
        extend(pool, cache)
    with pytest.raises(InputError, match=REFUSED):
        extend(pool, cache)


def test_a_copied_model_has_a_guard_of_its_own() -> None:
    pool = helpers.pool()
    twin = copy.deepcopy(pool.model)
    with pool.only("a"):
        cache = DynamicCache()
        twin(ONE, **given(cache))
    twin(ONE[:, :1], **given(cache))
