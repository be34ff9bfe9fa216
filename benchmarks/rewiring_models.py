"""This module gives the benchmark of rewiring its texts and its small mixture-of-experts models."""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from turnout.core.progress import Progress
from turnout.nn.tiny import BOS, EOS, PAD, UNKNOWN, Batch, train

Ids = npt.NDArray[np.int64]
ALPHABET = "\n" + "".join(c for c in map(chr, range(32, 127)))
VOCABULARY = 4 + len(ALPHABET)
FAMILIES = ("olmoe", "qwen3_moe")


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
    """Return a randomly initialised model with top-2 gates that are kept in balance by its own loss."""
    common = {
        "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "tie_word_embeddings": False,
        "num_experts": experts, "num_experts_per_tok": 2, "output_router_logits": True,
        "router_aux_loss_coef": 0.01,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "olmoe":
            return OlmoeForCausalLM(OlmoeConfig(**common, intermediate_size=width)).eval()
        config = Qwen3MoeConfig(
            **common, head_dim=width // 4, intermediate_size=width * 3, moe_intermediate_size=width,
            norm_topk_prob=True, mlp_only_layers=[],
        )  # fmt: skip
        return Qwen3MoeForCausalLM(config).eval()


def train_on(
    model: PreTrainedModel, ids: Ids, *, steps: int, length: int, seed: int, progress: Progress
) -> Sequence[float]:
    """Train on random stretches, 10 a step; return the loss of every step."""
    rng = np.random.default_rng(seed)

    def draw() -> Batch:
        ids_BT = windows(ids, count=10, length=length, rng=rng)
        return Batch(input_ids_BT=ids_BT, attention_mask_BT=torch.ones_like(ids_BT), labels_BT=ids_BT)

    losses = train(model, draw, steps=steps, lr=3e-3, progress=progress)
    model.config.output_router_logits = False
    return losses
