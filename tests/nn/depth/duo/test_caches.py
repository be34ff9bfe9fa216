"""A cache goes on under what filled it."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.nn.depth.duo.setup import make_duo, make_ids
from turnout.core.errors import InputError
from turnout.nn.caches import cache_keyword
from turnout.nn.depth.duo import DuoModel


def _continued(duo: DuoModel, cache: DynamicCache) -> torch.Tensor:
    with torch.no_grad():
        ids_BT = make_ids(2, 1)
        logits_BTV = duo.model(input_ids=ids_BT, use_cache=True, **{cache_keyword(duo.model): cache}).logits
    return torch.as_tensor(logits_BTV)


def _filled(duo: DuoModel) -> DynamicCache:
    cache = DynamicCache()
    with torch.no_grad():
        duo.model(input_ids=make_ids(2, 5), use_cache=True, **{cache_keyword(duo.model): cache})
    return cache


def test_a_cache_made_under_another_choice_is_refused_until_it_is_adopted() -> None:
    duo = make_duo()
    with duo.forced([0, 0, 1, 0]):
        cache = _filled(duo)
        _continued(duo, cache)
    # Let go and taken up again, the same choice goes on.
    with duo.forced([0, 0, 1, 0]):
        _continued(duo, cache)
    base = _filled(duo)
    with duo.forced([1, 1, 1, 1]):
        _continued(duo, base)
    with pytest.raises(InputError, match="keys that were made under another routing; start from an empty"):
        _continued(duo, cache)
    for other in (duo.forced([1, 0, 1, 0]), duo.routed(), duo.random(torch.Generator()), duo.soft(0.5)):
        with other, pytest.raises(InputError, match="another routing"):
            _continued(duo, cache)
    with duo.routed(), pytest.raises(InputError, match="another routing"):
        _continued(duo, base)
    with duo.routed():
        duo.adopt(cache)
        _continued(duo, cache)


def test_routers_that_moved_do_not_go_on_with_the_cache_of_those_before() -> None:
    duo = make_duo()
    with duo.routed():
        cache = _filled(duo)
        _continued(duo, cache)
        duo.layers[0].router.shift_ += 0.5
        with pytest.raises(InputError, match="another routing"):
            _continued(duo, cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_routers_that_moved_without_counting_it_do_not_go_on_either(dtype: torch.dtype) -> None:
    """An edit through `.data` counts no version up, and one that is taken back moved nothing."""
    duo = make_duo()
    duo.model.to(dtype)
    weight = duo.layers[2].router.weight_AD
    with duo.routed():
        cache = _filled(duo)
        _continued(duo, cache)
        weight.data.mul_(-1)
        with pytest.raises(InputError, match="another routing"):
            _continued(duo, cache)
        weight.data.mul_(-1)
        _continued(duo, cache)
        weight.data.copy_(weight.data.flip(0))
        with pytest.raises(InputError, match="another routing"):
            _continued(duo, cache)


def test_rows_of_a_cache_go_on_under_their_own_choices() -> None:
    duo = make_duo()
    with duo.forced([[0, 0, 1, 0], [1, 0, 0, 1]]):
        cache = _filled(duo)
    with duo.forced([[1, 0, 0, 1], [0, 0, 1, 0]]), pytest.raises(InputError, match="another routing"):
        _continued(duo, cache)
    cache.batch_select_indices(torch.tensor([1]))
    with duo.forced([[1, 0, 0, 1]]), torch.no_grad():
        duo.model(input_ids=make_ids(1, 1), use_cache=True, **{cache_keyword(duo.model): cache})
