"""Tiny random decoders of several families, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from turnout.nn.depth.contract import DepthRouter

LAYERS = 4
VOCABULARY = 48
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def _olmoe() -> PreTrainedModel:
    return OlmoeForCausalLM(OlmoeConfig(**COMMON, num_experts=4, num_experts_per_tok=2))


def _gemma2() -> PreTrainedModel:
    # The window is shorter than what the tests generate, so that it slides.
    return Gemma2ForCausalLM(Gemma2Config(**COMMON, head_dim=8, sliding_window=6, query_pre_attn_scalar=8))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**COMMON, sliding_window=6)),
    "olmoe": _olmoe,
    "gemma2": _gemma2,
}


def make(family: str, seed: int = 0) -> PreTrainedModel:
    """Return a model whose next tokens differ clearly: untrained heads are nearly flat."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


def prompts(rows: int = 5, tokens: int = 9, *, padding: str = "left", seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return (input_ids_BT, attention_mask_BT) of prompts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(4, VOCABULARY, (rows, tokens), generator=generator)
    mask_BT = torch.ones_like(ids_BT)
    for row in range(rows):
        pads = 2 * row % (tokens - 1)
        if pads and padding == "left":
            ids_BT[row, :pads], mask_BT[row, :pads] = 0, 0
        elif pads:
            ids_BT[row, -pads:], mask_BT[row, -pads:] = 0, 0
    return ids_BT, mask_BT


class Given(DepthRouter):
    """Decides by counts_BL that are given, one row a sequence; unlike `forced`, as any router does."""

    def __init__(self, counts_BL: Tensor) -> None:
        super().__init__()
        self.counts_BL, self.layers = counts_BL, counts_BL.shape[1]

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        return self.counts_BL[:, layer]

    def config(self) -> dict[str, Any]:
        return {"counts_BL": self.counts_BL.tolist()}


def random_counts(rows: int, *, seed: int = 0) -> Tensor:
    """Return counts_BL with every value, and skip, execute and repeat of the first block."""
    counts_BL = torch.randint(0, 3, (rows, LAYERS), generator=torch.Generator().manual_seed(seed))
    counts_BL[:, 0] = torch.arange(rows) % 3
    return counts_BL
