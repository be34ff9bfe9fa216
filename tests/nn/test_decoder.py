from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from turnout.core.errors import InputError
from turnout.nn.decoder import decoder_blocks, freeze
from turnout.nn.depth import RoutedDepth
from turnout.nn.tiny import tiny_llama


def test_the_blocks_of_a_decoder_are_found_with_their_owner() -> None:
    model = tiny_llama(vocab_size=8, width=16, layers=3)
    owner, name = decoder_blocks(model)
    assert owner is model.model
    assert getattr(owner, name) is model.model.layers


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="Sequential has no decoder blocks"):
        decoder_blocks(nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])))


def test_a_frozen_model_has_nothing_to_train() -> None:
    model = tiny_llama(vocab_size=8, width=16, layers=1)
    freeze(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())


TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def llava() -> PreTrainedModel:
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT))
    return LlavaForConditionalGeneration(config)


def gemma3() -> PreTrainedModel:
    config = Gemma3Config(vision_config=VISION, text_config={**TEXT, "head_dim": 16}, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


@pytest.mark.parametrize("make", [llava, gemma3])
def test_beside_a_deeper_tower_of_images_the_text_is_what_decodes(make) -> None:
    model = make().eval()
    owner, name = decoder_blocks(model)
    assert len(getattr(owner, name)) == 2
    for part in (model, model.model, owner):
        assert decoder_blocks(part) == (owner, name)
    assert RoutedDepth(model=model).layers == 2


@torch.no_grad()
def test_a_model_of_images_is_routed_where_its_decoder_sees_the_mask() -> None:
    ids_BT = torch.randint(3, 64, (1, 5))
    routed = RoutedDepth(model=llava().eval())
    with routed.forced([0, 2]):
        routed.model(input_ids=ids_BT)
    assert routed.counts_BL.tolist() == [[0, 2]]
    with pytest.raises(InputError, match=r"attention_mask.*got: 'dict'; wrap the family's class for text"):
        RoutedDepth(model=gemma3().eval()).model(input_ids=ids_BT)


def test_an_encoder_with_a_decoder_is_refused() -> None:
    config = BartConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    with pytest.raises(InputError, match="BartForConditionalGeneration reads its prompt by an encoder"):
        decoder_blocks(BartForConditionalGeneration(config))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"num_kv_shared_layers": 2}, "num_kv_shared_layers"), ({"altup_num_inputs": 2}, "altup_num_inputs")],
)
def test_blocks_that_hand_each_other_more_than_hidden_states_are_no_depth(settings, named) -> None:
    model = tiny_llama(vocab_size=8, width=16, layers=3)
    for name, value in settings.items():
        setattr(model.config, name, value)
    with pytest.raises(InputError, match=f"so none can be left out; allowed: {named} of at most"):
        RoutedDepth(model=model)


def test_a_real_decoder_with_shared_keys_is_no_depth() -> None:
    config = Gemma3nTextConfig(
        vocab_size=32,
        vocab_size_per_layer_input=32,
        hidden_size=16,
        hidden_size_per_layer_input=4,
        intermediate_size=[16] * 4,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_kv_shared_layers=2,
        activation_sparsity_pattern=None,
        layer_types=["full_attention"] * 4,
    )
    with pytest.raises(InputError, match=r"Gemma3nForCausalLM: blocks attend to keys"):
        RoutedDepth(model=Gemma3nForCausalLM(config))
