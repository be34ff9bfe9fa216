"""Tiny random mixture-of-experts models of several families."""

from __future__ import annotations

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from turnout.nn.moe import GATE_NAMES

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
DEEPSEEK = {
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
ALL_HEADS = {**COMMON, "num_key_value_heads": 4}


def olmoe(**changes):
    return OlmoeForCausalLM(
        OlmoeConfig(
            **{**COMMON, "intermediate_size": 16, "num_experts": 8, "num_experts_per_tok": 2, **changes}
        )
    )


def mixtral(**changes):
    settings = {"intermediate_size": 16, "num_local_experts": 4, "num_experts_per_tok": 2, **changes}
    return MixtralForCausalLM(MixtralConfig(**{**COMMON, **settings}, sliding_window=None))


def qwen2_moe():
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **COMMON, intermediate_size=48, moe_intermediate_size=16, shared_expert_intermediate_size=32,
            num_experts=8, num_experts_per_tok=3,
        )
    )  # fmt: skip


def qwen3_moe():
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **COMMON, intermediate_size=48, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2,
            norm_topk_prob=True, mlp_only_layers=[1],
        )
    )  # fmt: skip


def deepseek_v2():
    config = DeepseekV2Config(
        **ALL_HEADS, **DEEPSEEK, q_lora_rank=None, n_group=4, topk_group=2, topk_method="group_limited_greedy"
    )
    return DeepseekV2ForCausalLM(config)


def deepseek_v3():
    config = DeepseekV3Config(**ALL_HEADS, **DEEPSEEK, q_lora_rank=16, n_group=4, topk_group=2)
    return DeepseekV3ForCausalLM(config)


def gpt_oss():
    config = GptOssConfig(
        **COMMON, head_dim=16, intermediate_size=16, num_local_experts=4, num_experts_per_tok=2,
        sliding_window=16, rope_parameters={"rope_type": "default", "rope_theta": 150000.0},
    )  # fmt: skip
    return GptOssForCausalLM(config)


def granite():
    config = GraniteMoeConfig(**COMMON, intermediate_size=16, num_local_experts=8, num_experts_per_tok=2)
    return GraniteMoeForCausalLM(config)


FAMILIES = {
    make.__name__: make
    for make in (olmoe, mixtral, qwen2_moe, qwen3_moe, deepseek_v2, deepseek_v3, gpt_oss, granite)
}


def decisive(family: str, *, seed: int = 0, factor: float = 50.0, **changes) -> PreTrainedModel:
    """Return a tiny model whose gates are decisive, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAMILIES[family](**changes).eval()
        for module in model.modules():
            for name in GATE_NAMES:
                gate = getattr(module, name, None)
                if gate is not None and hasattr(module, "experts"):
                    gate.weight.data.mul_(factor)
                    if hasattr(gate, "e_score_correction_bias"):
                        gate.e_score_correction_bias.normal_(std=0.1)
    return model


def tokens(*, batch: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Return random ids without special tokens (batch, length)."""
    return torch.randint(4, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def begun_alike() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two batches of eight texts that all begin with the same token (8, 16)."""
    first, second = (tokens(batch=8, length=16, seed=seed) for seed in (0, 1))
    first[:, 0] = second[:, 0] = 1
    return first, second


def generated(model, *, new_tokens: int = 4) -> list[torch.Tensor]:
    """Return what a model generates greedily after `tokens()`, with a cache, and the logits of each step."""
    ids_BT = tokens()
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    mask_BT = torch.ones_like(ids_BT)
    out = model.generate(input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=new_tokens, **options)
    return [out.sequences, *out.logits]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Return whether all tensors are the same bits."""
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))
