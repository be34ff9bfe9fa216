"""After the prompt the decoder walks through its blocks' stand-ins; who hangs on a block is still asked."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tests.nn.depth.families import FAMILIES, make, prompts
from tests.nn.given import given
from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth

COUNTS = [[1, 0, 2, 1]]
GREEDY: dict = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}


class Fixed:
    """A wrapped model that has read a prompt as `COUNTS` says, and continues it by a token at a time."""

    def __init__(self, family: str = "llama") -> None:
        self.routed = RoutedDepth(model=make(family))
        self.ids_BT = prompts(rows=3)[0]
        self.cache = DynamicCache(config=self.routed.model.config)
        with torch.no_grad(), self.routed.forced(COUNTS):
            self.routed.model(self.ids_BT[:, :-1], **given(self.cache))

    def step(self, cache: DynamicCache | None = None, **options: Any) -> Any:
        with torch.no_grad():
            return self.routed.model(
                input_ids=self.ids_BT[:, -1:], **given(cache or copy.deepcopy(self.cache)), **options
            )


def kinds(routed: RoutedDepth) -> list[type]:
    """Return a list that grows by what the decoder's blocks stand in, whenever the last block is reached."""
    seen: list[type] = []
    routed.owner.layers[3].mlp.register_forward_hook(lambda *_: seen.append(type(routed.owner.layers)))
    return seen


def test_the_list_of_blocks_is_a_plain_one_while_a_token_is_decoded_and_the_models_own_otherwise() -> None:
    routed = RoutedDepth(model=make("llama"))
    seen, blocks = kinds(routed), routed.owner.layers
    routed.model.generate(input_ids=prompts(rows=2)[0], **GREEDY)
    assert seen == [nn.ModuleList, list, list, list]
    assert routed.owner.layers is blocks
    assert isinstance(blocks, nn.ModuleList)


def test_what_is_forced_is_compared_at_the_first_token_and_walked_from_the_second() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT = prompts(rows=3)[0]
    with routed.forced([[1, 0, 2, 1], [1, 1, 1, 1], [0, 1, 1, 1]]):
        plain_BT = routed.model.generate(input_ids=ids_BT, use_cache=False, **GREEDY)
        seen = kinds(routed)
        assert torch.equal(routed.model.generate(input_ids=ids_BT, **GREEDY), plain_BT)
    assert seen == [nn.ModuleList, nn.ModuleList, list, list]


def test_a_cache_that_is_walked_is_refused_under_other_forced_decisions() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, cache = prompts(rows=2)[0], DynamicCache()
    with torch.no_grad():
        with routed.forced([1, 0, 1, 1]):
            for part_BT in (ids_BT[:, :-2], ids_BT[:, -2:-1], ids_BT[:, -1:]):
                routed.model(input_ids=part_BT, **given(cache))
        with routed.forced([1, 1, 1, 1]), pytest.raises(InputError, match="other decisions at layer 1"):
            routed.model(input_ids=ids_BT[:, -1:], **given(cache))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_comes_to_what_the_modules_come_to(family: str) -> None:
    fixed = Fixed(family)
    seen = kinds(fixed.routed)
    walked = fixed.step().logits
    handles = [
        block.register_forward_hook(lambda *_: None) for block in fixed.routed.owner.layers
    ]  # a hook sends the call through the module
    called = fixed.step().logits
    for handle in handles:
        handle.remove()
    assert seen == [list, list]
    assert torch.equal(walked, called)


def test_a_hook_that_is_hung_on_a_block_between_two_tokens_is_called() -> None:
    fixed = Fixed()
    before = fixed.step().logits
    seen: list[str] = []
    blocks = fixed.routed.owner.layers
    blocks[0].register_forward_pre_hook(lambda *_: seen.append("before an executed block"))
    blocks[1].register_forward_hook(lambda *_: seen.append("after a skipped block"))
    blocks[2].register_forward_hook(lambda _module, _args, output: output + 1.0)
    after = fixed.step().logits
    assert seen == ["before an executed block", "after a skipped block"]
    assert not torch.allclose(before, after)


def test_a_forward_that_is_put_in_between_two_tokens_is_called() -> None:
    fixed = Fixed()
    block, calls = fixed.routed.owner.layers[0], []
    before = block.forward

    @functools.wraps(before)
    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return before(*args, **kwargs)

    block.forward = counted
    fixed.step()
    assert calls == [1]


def test_hidden_states_that_are_asked_for_after_the_prompt_are_those_of_every_block() -> None:
    fixed = Fixed()
    states = fixed.step(output_hidden_states=True).hidden_states
    assert len(states) == 5
    assert torch.equal(states[1], states[2])  # the second block is skipped
    assert not torch.equal(states[0], states[1])


def test_a_hook_on_all_modules_is_called_for_every_block() -> None:
    fixed = Fixed()
    blocks, seen = list(fixed.routed.owner.layers), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(module) if module in blocks else None
    )
    try:
        fixed.step()
    finally:
        handle.remove()
    assert seen == blocks


def test_a_token_that_fails_leaves_the_models_own_list_and_the_decisions_before() -> None:
    fixed = Fixed()
    counts_BL = fixed.routed.counts_BL
    blocks = fixed.routed.owner.layers
    handle = blocks[2].mlp.register_forward_pre_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        fixed.step()
    handle.remove()
    assert fixed.routed.owner.layers is blocks
    assert isinstance(blocks, nn.ModuleList)
    assert fixed.routed.counts_BL is counts_BL
    assert torch.equal(fixed.step().logits, fixed.step().logits)


def test_another_list_of_blocks_is_walked_by_itself() -> None:
    fixed = Fixed()
    owner, seen = fixed.routed.owner, kinds(fixed.routed)
    owner.layers = nn.ModuleList([owner.layers[0], owner.layers[1], owner.layers[3], owner.layers[2]])
    fixed.step()
    assert seen == [nn.ModuleList]


def test_a_copy_of_a_wrapped_model_walks_through_its_own_blocks() -> None:
    fixed = Fixed()
    other = copy.deepcopy(fixed.routed.model)
    seen: list[int] = []
    other.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    ids_BT = fixed.ids_BT
    before = fixed.routed.model.generate(input_ids=ids_BT, **GREEDY)
    assert not seen
    assert torch.equal(other.generate(input_ids=ids_BT, **GREEDY), before)
    assert len(seen) == GREEDY["max_new_tokens"]
