"""A router reads its prompt whole: in pieces, half read or under another mask it is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, MiniMaxConfig, MiniMaxForCausalLM

from tests.nn.depth.families import COMMON, LAYERS, make, prompts
from tests.nn.depth.test_routed import wild_router
from tests.nn.given import given
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth import RandomSkip, RoutedDepth


def test_a_prompt_in_pieces_is_refused_where_a_router_should_have_read_it_whole() -> None:
    """One token at a time is decoding, and what decides without the prompt may have it in pieces."""
    ids_BT, _ = prompts(rows=3)
    generating = {"max_new_tokens": 3, "do_sample": False}
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    read = DynamicCache()
    with torch.no_grad():
        routed.model(ids_BT[:, :4], **given(read))
        with pytest.raises(InputError, match="got: '4 tokens, then 5'"):
            routed.model.generate(ids_BT, **given(copy.deepcopy(read)), **generating)
        with routed.kept():
            routed.model.generate(ids_BT, **given(copy.deepcopy(read)), **generating)
        routed.model.generate(ids_BT[:, :5], **given(read), **generating)
        for router in (None, RandomSkip(layers=LAYERS, executed=2)):
            routed.set_router(router)
            cache = DynamicCache()
            routed.model(ids_BT[:, :4], **given(cache))
            routed.model(ids_BT[:, 4:], **given(cache))
            assert cache.get_seq_length() == 9


@pytest.mark.parametrize("shape", [(3, 7), (3, 12), (2, 9)])
def test_a_mask_of_another_shape_than_the_tokens_is_refused(shape: tuple[int, int]) -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, _ = prompts(rows=3)
    with pytest.raises(ShapeError, match=r"attention_mask; allowed: \(3, 9\), .* 9 tokens; got: \("):
        routed.model(ids_BT, attention_mask=torch.ones(shape, dtype=torch.long))


def test_blocks_that_keep_running_states_are_refused_when_they_are_wrapped() -> None:
    """MiniMax's blocks hold a `self_attn` each, of which every second one is linear and keeps a state."""
    model = MiniMaxForCausalLM(
        MiniMaxConfig(**COMMON, num_local_experts=2, layer_types=["full_attention", "linear_attention"] * 2)
    )
    with pytest.raises(InputError, match=r"layers of the model's cache; allowed: .*LinearAttentionLayer"):
        RoutedDepth(model=model)
    assert not any("forward" in block.__dict__ for block in model.model.layers)


def test_a_cache_that_a_refusal_left_half_filled_is_refused_in_a_sentence() -> None:
    routed = RoutedDepth(model=make("llama"), strict=True)
    ids_BT, _ = prompts(rows=2)
    cache = DynamicCache()
    with torch.no_grad():
        with pytest.raises(InputError, match="disagree"), routed.forced([[1, 1, 1, 1], [1, 0, 1, 1]]):
            routed.model(ids_BT, **given(cache))
        with pytest.raises(InputError, match=r"did not reach its end.*got: \[0, 9\]; start from an empty"):
            routed.model(ids_BT, **given(cache))
        cache.reset()
        routed.model(ids_BT, **given(cache))
        broken = copy.deepcopy(cache)
        broken.layers[0].length += 1
        with pytest.raises(InputError, match="did not reach its end"):
            routed.model(ids_BT[:, :1], **given(broken))
