"""Decoding runs in inference mode, and nothing that leaves it is a tensor that training cannot save."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from tests.nn.depth.families import COMMON, FAMILIES, make, prompts
from tests.nn.given import given
from turnout.nn.caches import cache_keyword
from turnout.nn.depth import RandomSkip, RoutedDepth, generate_grouped
from turnout.nn.depth.blocks import own_forward

COUNTS = [[1, 0, 1, 1], [1, 2, 0, 1], [1, 1, 1, 1]]
OPTIONS: dict = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}


def modes(routed: RoutedDepth) -> list[bool]:
    """Return a list that every call of the first block's feed-forward part adds to: was it inference mode?"""
    seen: list[bool] = []
    routed.owner.layers[0].mlp.register_forward_hook(
        lambda *_: seen.append(torch.is_inference_mode_enabled())
    )
    return seen


@pytest.mark.parametrize("is_grouped", [False, True])
def test_answers_and_decisions_can_be_trained_on(is_grouped: bool) -> None:
    routed = RoutedDepth(model=make("llama"), router=RandomSkip(layers=4, executed=2))
    ids_BT, _ = prompts(rows=3)
    seen = modes(routed)
    if is_grouped:
        answers_BT = generate_grouped(routed, ids_BT, **OPTIONS)
    else:
        answers_BT = routed.model.generate(input_ids=ids_BT, **OPTIONS)
    assert all(seen)
    assert not answers_BT.is_inference()
    assert not routed.counts_BL.is_inference()
    loss = routed.model(input_ids=answers_BT, labels=answers_BT).loss
    torch.autograd.backward(loss)
    weights = torch.zeros(3, requires_grad=True)
    torch.autograd.backward(weights[routed.counts_BL].sum())
    assert weights.grad is not None


def test_a_caller_with_a_part_in_the_tensors_gets_those_of_the_library() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts(rows=3)
    seen = modes(routed)
    cache = DynamicCache()
    routed.model.generate(input_ids=ids_BT, **OPTIONS, **given(cache))
    assert not any(slot.keys.is_inference() for layer in cache.layers for slot in layer.slots)
    found = routed.model.generate(
        input_ids=ids_BT, **OPTIONS, return_dict_in_generate=True, output_logits=True
    )
    assert not any(logits.is_inference() for logits in found.logits)
    kept: list[torch.Tensor] = []
    with routed.watched(lambda _layer, hidden_BTD, _mask_BT: kept.append(hidden_BTD)):
        routed.model.generate(input_ids=ids_BT, **OPTIONS)
        generate_grouped(routed, ids_BT, **OPTIONS)
    assert not any(hidden_BTD.is_inference() for hidden_BTD in kept)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_is_the_same_in_both_modes(family: str) -> None:
    routed = RoutedDepth(model=make(family))
    ids_BT, mask_BT = prompts(rows=3)
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, **OPTIONS}
    with routed.forced(COUNTS):
        light_BT = routed.model.generate(**inputs)
        plain = routed.model.generate(**inputs, return_dict_in_generate=True)
    assert torch.equal(light_BT, plain.sequences)


def test_a_blocks_own_forward_is_called_without_what_only_training_needs() -> None:
    block = make("llama").model.layers[0]
    own, names = own_forward(block)
    assert not hasattr(own, "__wrapped__")
    assert hasattr(type(block).forward, "__wrapped__")
    assert {"hidden_states", "position_embeddings"} <= names


def test_a_forward_that_somebody_else_put_in_is_called() -> None:
    model = make("llama")
    calls: list[int] = []
    block = model.model.layers[1]
    before = block.forward

    @functools.wraps(before)
    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return before(*args, **kwargs)

    block.forward = counted
    routed = RoutedDepth(model=model)
    routed.model.generate(input_ids=prompts(rows=2)[0], **OPTIONS)
    assert len(calls) == OPTIONS["max_new_tokens"]


def test_an_argument_under_a_name_that_is_gone_goes_through_the_librarys_wrapper() -> None:
    routed = RoutedDepth(model=make("llama"))
    inputs = {"input_ids": prompts(rows=3)[0], **OPTIONS}
    block = routed.owner.layers[0]
    now = cache_keyword(block)
    gone = "past_key_values" if now == "cache" else "cache"
    with routed.forced(COUNTS):
        before = routed.model.generate(**inputs)
        block.register_forward_pre_hook(
            lambda _module, args, given: (args, {gone if n == now else n: v for n, v in given.items()}),
            with_kwargs=True,
        )
        with pytest.warns(FutureWarning, match=f"`{gone}` is deprecated"):
            after = routed.model.generate(**inputs)
    assert torch.equal(before, after)


@pytest.mark.parametrize("is_grouped", [False, True])
def test_frequencies_for_a_long_text_are_tensors_like_others(is_grouped: bool) -> None:
    """A rotary embedding that grows keeps what it computes, here in inference mode."""
    parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(**{**COMMON, "max_position_embeddings": 8}, rope_parameters=parameters)
    model = LlamaForCausalLM(config).eval()
    before_D = model.model.rotary_emb.inv_freq.clone()
    routed = RoutedDepth(model=model, router=RandomSkip(layers=4, executed=2))
    ids_BT, _ = prompts(rows=3)
    if is_grouped:
        generate_grouped(routed, ids_BT, **OPTIONS)
    else:
        model.generate(input_ids=ids_BT, **OPTIONS)
    frequencies_D = model.model.rotary_emb.inv_freq
    assert not torch.equal(frequencies_D, before_D)
    frequencies_D.add_(0.0)
    held = [*model.buffers(), *(t for part in model.modules() for t in vars(part).values())]
    assert not any(isinstance(t, torch.Tensor) and t.is_inference() for t in held)
