"""Tiny random models whose gates have a form of their own, or share their choice with their block."""

from __future__ import annotations

import torch
from transformers import (
    DbrxConfig,
    DbrxForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    JetMoeConfig,
    JetMoeForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LongcatFlashConfig,
    LongcatFlashForCausalLM,
    MiniMaxM2Config,
    MiniMaxM2ForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedModel,
)

from tests.nn.moe_models import COMMON
from turnout.nn.moe import find_moe_layers

ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def minimax_m2():
    """The selection bias is the block's."""
    return MiniMaxM2ForCausalLM(
        MiniMaxM2Config(
            **COMMON, head_dim=8, intermediate_size=16, num_local_experts=8, num_experts_per_tok=2,
            rotary_dim=8,
        )
    )  # fmt: skip


def gemma4():
    """Gate and experts stand in the decoder layer; the gate returns probabilities and scales each expert."""
    return Gemma4ForCausalLM(
        Gemma4TextConfig(
            **COMMON, head_dim=8, global_head_dim=8, intermediate_size=48, enable_moe_block=True,
            num_experts=8, top_k_experts=2, moe_intermediate_size=16, hidden_size_per_layer_input=0,
            num_kv_shared_layers=0, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            sliding_window=16,
        )
    )  # fmt: skip


def llama4():
    """The gate returns the scores of all experts, and these multiply what goes in."""
    return Llama4ForCausalLM(
        Llama4TextConfig(
            **COMMON, head_dim=8, intermediate_size=16, intermediate_size_mlp=32, num_local_experts=8,
            num_experts_per_tok=2, attention_chunk_size=64, interleave_moe_layer_step=1,
        )
    )  # fmt: skip


def dbrx():
    """The gate returns logits, and the block chooses."""
    config = DbrxConfig(
        d_model=32, n_heads=4, n_layers=2, max_seq_len=128, vocab_size=64, pad_token_id=0,
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        ffn_config={"ffn_hidden_size": 16, "hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2},
    )  # fmt: skip
    return DbrxForCausalLM(config)


def jetmoe():
    """The gate sorts the tokens by expert; attention has experts too."""
    return JetMoeForCausalLM(
        JetMoeConfig(
            **{**COMMON, "num_key_value_heads": 2, "num_hidden_layers": 2}, kv_channels=16,
            intermediate_size=16, num_local_experts=8, num_experts_per_tok=2,
        )
    )  # fmt: skip


def longcat_flash():
    """Some of the experts compute nothing and have no weights."""
    return LongcatFlashForCausalLM(
        LongcatFlashConfig(
            **{**COMMON, "num_key_value_heads": 4, "num_hidden_layers": 2}, num_layers=2, ffn_hidden_size=32,
            expert_ffn_hidden_size=16, n_routed_experts=6, zero_expert_num=2, moe_topk=2, kv_lora_rank=16,
            q_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, head_dim=8, v_head_dim=16,
        )
    )  # fmt: skip


def phimoe():
    """The second weight is a softmax among what the first choice left."""
    return PhimoeForCausalLM(
        PhimoeConfig(
            **COMMON, intermediate_size=16, num_local_experts=8, num_experts_per_tok=2, sliding_window=None,
            router_jitter_noise=0.2, input_jitter_noise=0.0,
        )
    )  # fmt: skip


MODELS = {make.__name__: make for make in (minimax_m2, gemma4, llama4, dbrx, jetmoe, longcat_flash, phimoe)}


def sharp(family: str, *, seed: int = 0) -> PreTrainedModel:
    """Return a tiny model whose gates are decisive and biased, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[family]().eval()
        for layer in find_moe_layers(model):
            for parameter in layer.gate.parameters():
                if parameter.ndim == 2:
                    torch.nn.init.normal_(parameter, std=1.0)
            held = dict(layer.block.named_parameters()) | dict(layer.block.named_buffers())
            for name, value in held.items():
                if name.endswith(("correction_bias", "expert_scale")):
                    torch.nn.init.uniform_(value, 0.05, 0.4)
    return model
