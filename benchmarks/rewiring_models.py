"""This module gives the benchmark of rewiring its texts and its small mixture-of-experts models."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from turnout.core.progress import Progress
from turnout.nn.balance.bias import LossFreeBias
from turnout.nn.gate_hook import GateHook, Routing
from turnout.nn.tiny import BOS, EOS, PAD, UNKNOWN, Batch, train

Ids = npt.NDArray[np.int64]
ALPHABET = "\n" + "".join(c for c in map(chr, range(32, 127)))
VOCABULARY = 4 + len(ALPHABET)
BIAS_STEP = 5e-3
"""Of the bias on choice scores; the published 1e-3 is for many more steps than there are here."""


def read_texts() -> tuple[dict[str, Ids], str]:
    """Return token ids of `train`, `unshifted` (held out) and `shifted` text, and where they come from.

    Characters of tinyshakespeare and WikiText-2 below TURNOUT_DATA; without it, of made-up languages.
    """
    folder = Path(os.environ.get("TURNOUT_DATA", "")) / "corpora" / "text"
    if not (folder / "tinyshakespeare.txt").is_file():
        return made_up(), "made up: random bigram languages; the shifted one was never seen"
    plays = encode((folder / "tinyshakespeare.txt").read_text(encoding="utf-8"))
    wiki = encode((folder / "wikitext2_test.txt").read_text(encoding="utf-8"))
    split = int(len(plays) * 0.9)
    texts = {"train": plays[:split], "unshifted": plays[split:], "shifted": wiki}
    return texts, "characters; trained on tinyshakespeare, shifted: WikiText-2 (test)"


def encode(text: str) -> Ids:
    """Return one id a character; what is not printable ASCII is unknown."""
    table = np.full(0x110000, UNKNOWN, dtype=np.int64)
    for number, character in enumerate(ALPHABET):
        table[ord(character)] = 4 + number
    return table[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)]


def made_up(length: int = 60_000) -> dict[str, Ids]:
    """Return three bigram languages in turns to train on, and a mean of two of them as shifted text."""
    rng = np.random.default_rng(0)
    letters = encode(string.ascii_lowercase + " ")
    tables = rng.dirichlet(np.full(len(letters), 0.1), size=(3, len(letters)))

    def write(table: npt.NDArray[np.float64], count: int) -> Ids:
        cumulative, state, out = table.cumsum(axis=1), 0, np.empty(count, dtype=np.int64)
        for position, draw in enumerate(rng.random(count)):
            state = min(int(cumulative[state].searchsorted(draw)), len(letters) - 1)
            out[position] = letters[state]
        return out

    seen = np.concatenate([write(table, length // 3) for table in tables])
    held_out = np.concatenate([write(table, length // 6) for table in tables])
    return {"train": seen, "unshifted": held_out, "shifted": write(tables[:2].mean(axis=0), length // 3)}


def windows(ids: Ids, *, count: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """Return random stretches of a text (count, length)."""
    starts = rng.integers(0, len(ids) - length, size=count)
    return torch.from_numpy(np.stack([ids[s : s + length] for s in starts]))


def make_model(family: str, *, width: int, layers: int, experts: int, seed: int) -> PreTrainedModel:
    """Return a randomly initialised model with top-2 gates in the form of its family."""
    common = {
        "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "tie_word_embeddings": False,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MAKERS[family](common, width, experts).eval()


BALANCED = {"output_router_logits": True, "router_aux_loss_coef": 0.01}
"""Of families whose own loss keeps experts in balance while they are trained."""


def _olmoe(common: dict[str, Any], width: int, experts: int) -> PreTrainedModel:
    return OlmoeForCausalLM(OlmoeConfig(**common, **BALANCED, num_experts=experts, intermediate_size=width))


def _mixtral(common: dict[str, Any], width: int, experts: int) -> PreTrainedModel:
    config = MixtralConfig(
        **common, **BALANCED, num_local_experts=experts, intermediate_size=width, sliding_window=None
    )
    return MixtralForCausalLM(config)


def _qwen2_moe(common: dict[str, Any], width: int, experts: int) -> PreTrainedModel:
    config = Qwen2MoeConfig(
        **common, **BALANCED, num_experts=experts, intermediate_size=width * 3, moe_intermediate_size=width,
        shared_expert_intermediate_size=width, norm_topk_prob=False,
    )  # fmt: skip
    return Qwen2MoeForCausalLM(config)


def _deepseek_v3(common: dict[str, Any], width: int, experts: int) -> PreTrainedModel:
    head = width // 4
    config = DeepseekV3Config(
        **{**common, "num_key_value_heads": 4}, n_routed_experts=experts, n_shared_experts=1, n_group=2,
        topk_group=1, first_k_dense_replace=1, intermediate_size=width * 3, moe_intermediate_size=width,
        kv_lora_rank=width // 2, q_lora_rank=width // 2, qk_nope_head_dim=head, qk_rope_head_dim=head,
        v_head_dim=head,
    )  # fmt: skip
    return DeepseekV3ForCausalLM(config)


MAKERS: dict[str, Callable[[dict[str, Any], int, int], PreTrainedModel]] = {
    "olmoe": _olmoe, "mixtral": _mixtral, "qwen2_moe": _qwen2_moe, "deepseek_v3": _deepseek_v3,
}  # fmt: skip

GATES = {
    "olmoe": "softmax over all experts, weights as they are",
    "mixtral": "softmax, weights of the chosen normalised",
    "qwen2_moe": "softmax, weights as they are, and a shared expert",
    "deepseek_v3": "sigmoid, groups, a bias on the choice alone, a shared expert; no gate in the first block",
}
"""How each family's gates score."""


def train_on(
    model: PreTrainedModel, ids: Ids, *, steps: int, length: int, seed: int, progress: Progress
) -> Sequence[float]:
    """Train on random stretches, 10 a step; return the loss of every step."""
    rng = np.random.default_rng(seed)

    def draw() -> Batch:
        ids_BT = windows(ids, count=10, length=length, rng=rng)
        return Batch(input_ids_BT=ids_BT, attention_mask_BT=torch.ones_like(ids_BT), labels_BT=ids_BT)

    biases = choice_biases(model)
    hook = GateHook(model)
    with hook.recording() as records:
        balances = [LossFreeBias(num_experts=layer.num_experts, step=BIAS_STEP) for layer in hook.layers]

        def balanced() -> Batch:
            for seen, balance, bias_E in zip(records, balances, biases, strict=True):
                if bias_E is not None:
                    _move(seen, balance, bias_E)
                seen.clear()
            return draw()

        losses = train(model, balanced, steps=steps, lr=3e-3, progress=progress)
    model.config.output_router_logits = False
    return losses


def choice_biases(model: PreTrainedModel) -> list[torch.Tensor | None]:
    """Return what each gate adds to its choice scores alone, which no gradient reaches; None for nothing."""
    gates: list[Any] = [layer.gate for layer in GateHook(model).layers]
    return [getattr(gate, "e_score_correction_bias", None) for gate in gates]


def _move(seen: list[Routing], balance: LossFreeBias, bias_E: torch.Tensor) -> None:
    """Move a bias against the loads of the passes that were seen."""
    for routing in seen:
        balance.observe(routing.indices_TK.flatten().bincount(minlength=len(bias_E)))
    balance.update(bias_E)
