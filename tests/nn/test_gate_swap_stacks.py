"""Swapped gates of models of an encoder and a decoder know the padding and ids of their own stack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    PreTrainedModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

from turnout.core.errors import InputError
from turnout.nn.gate_pass import called_with_tokens
from turnout.nn.gate_swap import GateSwap
from turnout.nn.moe import find_moe_layers
from turnout.nn.plan import SparsePlan

SPECIAL = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}


def switch() -> PreTrainedModel:
    config = SwitchTransformersConfig(
        vocab_size=64, d_model=32, d_ff=32, d_kv=8, num_heads=4, num_layers=2, num_decoder_layers=2,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, num_experts=4, expert_capacity=64,
        **SPECIAL,
    )  # fmt: skip
    return SwitchTransformersForConditionalGeneration(config)


def nllb() -> PreTrainedModel:
    config = NllbMoeConfig(
        vocab_size=64, d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_sparse_step=2, decoder_sparse_step=2,
        num_experts=4, expert_capacity=64, **SPECIAL,
    )  # fmt: skip
    return NllbMoeForConditionalGeneration(config)


def swapped(gate: str, **config: Any) -> tuple[PreTrainedModel, GateSwap]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = switch().eval()
        for name, parameter in model.named_parameters():
            if "experts" in name:
                parameter.data.mul_(3)
        return model, GateSwap.of(model, gate, **config)


def batch() -> dict[str, torch.Tensor]:
    """The second item ends in padding in the encoder, the first one in the decoder."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 64, (2, 12), generator=random)
    ids[1, 8:] = 0
    decoder_ids = torch.randint(4, 64, (2, 5), generator=random)
    decoder_ids[0, 3:] = 0
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "decoder_input_ids": decoder_ids,
        "decoder_attention_mask": (decoder_ids > 0).long(),
    }


def test_an_item_in_a_padded_batch_gets_what_it_gets_alone() -> None:
    model, swap = swapped("top_k", k=1, weight="score")
    given = batch()
    together = model(**given).logits
    encoder, decoder = swap.plans[0], swap.plans[-1]
    assert encoder is not None
    assert decoder is not None
    for plan, name in ((encoder, "attention_mask"), (decoder, "decoder_attention_mask")):
        assert plan.mask_T is not None
        assert plan.mask_T.tolist() == given[name].bool().flatten().tolist()
    for item, (length, decoder_length) in enumerate(((12, 3), (8, 5))):
        alone = model(
            input_ids=given["input_ids"][item : item + 1, :length],
            decoder_input_ids=given["decoder_input_ids"][item : item + 1, :decoder_length],
        ).logits
        assert torch.allclose(together[item, :decoder_length], alone[0], atol=1e-5)


def test_decoding_sends_every_token_to_an_expert() -> None:
    model, swap = swapped("top_k", k=1, weight="score")
    given = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    together = model.generate(**given, **options)
    assert isinstance(swap.plans[-1], SparsePlan)
    assert swap.plans[-1].num_pairs == 2
    alone = model.generate(input_ids=given["input_ids"][1:, :8], **options)
    assert torch.equal(together[1], alone[0])


def test_gates_see_the_ids_of_their_own_stack_and_no_state_of_the_other() -> None:
    model, swap = swapped("recurrent", k=1, is_shared=True)
    seen = []
    for gate in swap.gates:
        gate.register_forward_pre_hook(lambda _gate, given: seen.append(given[1]))
    given = batch()
    # As many tokens in both, so that no shape tells them apart.
    ids = given["input_ids"][:, :5]
    model(input_ids=ids, decoder_input_ids=given["decoder_input_ids"])
    encoder, decoder = seen
    # Layers are counted by stack.
    assert [(one.layer, one.num_layers) for one in seen] == [(0, 1), (0, 1)]
    assert torch.equal(encoder.token_ids_BS, ids)
    assert torch.equal(decoder.token_ids_BS, given["decoder_input_ids"])
    assert decoder.state is None


@pytest.mark.parametrize("make", [switch, nllb])
def test_blocks_belong_to_one_of_two_stacks(make) -> None:
    model = make()
    layers = find_moe_layers(model)
    called = [called_with_tokens(model, layer.name) for layer in layers]
    sides = {id(model.get_encoder()): "encoder", id(model.get_decoder()): "decoder"}
    assert all(f"{sides[id(one)]}." in layer.name for one, layer in zip(called, layers, strict=True))
    assert len({id(one) for one in called}) == 2


def test_a_block_whose_padding_cannot_be_known_is_refused() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = torch.nn.Linear(2, 2)

        def forward(self, input_ids, decoder_input_ids):
            return self.block(input_ids + decoder_input_ids)

    with pytest.raises(InputError, match="called with `attention_mask`"):
        called_with_tokens(Odd(), "block")
