"""Decoders that were half of something else, and what their blocks must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.nn.depth.families import make, prompts, random_counts
from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.returned import returns_tuple

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "d_model": 32,
    "decoder_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GREEDY = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": None}


def decoder(family: str, **sizes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
    found: PreTrainedModel = model
    return found


@pytest.mark.parametrize("family", ["bart", "marian", "bigbird_pegasus"])
def test_the_decoder_of_an_encoder_family_generates(family: str) -> None:
    """Its config counts the encoder's blocks, of which there are more, and so does its cache."""
    model: Any = decoder(family, **SIZES, encoder_layers=6)
    ids_BT, mask_BT = prompts(rows=3)
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    base_BT = model.generate(**inputs, **GREEDY)
    routed = RoutedDepth(model=model)
    assert torch.equal(model.generate(**inputs, **GREEDY), base_BT)
    with routed.forced(random_counts(3)):
        for options in (GREEDY, {**GREEDY, "num_beams": 2}):
            cached_BT = model.generate(**inputs, **options)
            assert torch.equal(cached_BT, model.generate(**inputs, **options, use_cache=False))
            assert not torch.equal(cached_BT, base_BT)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("trocr", SIZES),
        ("mvp", {**SIZES, "encoder_layers": 4}),
        ("prophetnet", {"vocab_size": 48, "hidden_size": 32, "decoder_ffn_dim": 48}),
    ],
)
def test_blocks_that_return_more_than_hidden_states_are_refused_at_the_wrap(
    family: str, sizes: dict[str, Any]
) -> None:
    model = decoder(family, **sizes)
    with pytest.raises(InputError, match=r"block 0 \(\w+DecoderLayer\): what it returns.*got: 'tuple'"):
        RoutedDepth(model=model)


def test_blocks_that_are_held_by_no_reader_of_tokens_are_refused() -> None:
    config = AutoConfig.for_model(
        "hrm_text",
        vocab_size=48,
        hidden_size=32,
        intermediate_size=48,
        num_layers_per_stack=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    with pytest.raises(InputError, match=r"held by a HrmTextStack.*what embeds the tokens"):
        RoutedDepth(model=AutoModelForCausalLM.from_config(config))


def test_a_block_whose_source_hides_what_it_returns_is_refused_when_it_is_called() -> None:
    model: Any = make("llama")
    block = model.model.layers[1]
    own = block.forward
    block.forward = lambda *args, **kwargs: (own(*args, **kwargs),)
    RoutedDepth(model=model)
    with pytest.raises(InputError, match=r"block 1 \(LlamaDecoderLayer\): what it returns.*got: 'tuple'"):
        model(input_ids=prompts(rows=2)[0])


def test_what_a_function_returns_is_read_in_its_own_lines() -> None:
    def named(x: int) -> Any:
        found: Any = (x,)
        if x:
            found += (x,)
        return found

    def inside(x: int) -> Any:
        def pair() -> Any:
            return x, x

        return pair()[0]

    def sometimes(x: int) -> Any:
        return (x,) if x else x

    def either(x: int) -> Any:
        if x:
            return x, x
        return x

    assert returns_tuple(named)
    assert not any(returns_tuple(function) for function in (inside, sometimes, either, len))
