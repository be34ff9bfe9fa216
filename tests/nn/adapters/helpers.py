"""This module makes what the tests of adapters share: a small base, its adapters, and PEFT's own outputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from turnout.nn.adapters import AdapterPool, Lora, LoraPart
from turnout.nn.tiny import tiny_llama

VOCABULARY = 40
TARGETS = ("q_proj", "down_proj")


def base(*, width: int = 32, layers: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """Return the same small Llama every time."""
    torch.set_num_threads(1)
    return tiny_llama(vocab_size=VOCABULARY, width=width, layers=layers, seed=seed)


def tokens(rows: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    """Return random ids without special tokens."""
    return torch.randint(4, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def paths(targets: Sequence[str] = TARGETS) -> list[str]:
    """Return where the base holds modules of these names."""
    return [name for name, _ in base().named_modules() if name.rpartition(".")[2] in targets]


def lora(name: str, *, rank: int = 4, seed: int = 0, targets: Sequence[str] = TARGETS) -> Lora:
    """Return a random adapter that changes the base's outputs visibly."""
    random, model = torch.Generator().manual_seed(1000 + seed), base()
    parts = {}
    for path in paths(targets):
        module = model.get_submodule(path)
        a_RD = torch.randn(rank, module.in_features, generator=random)
        b_OR = torch.randn(module.out_features, rank, generator=random)
        parts[path] = LoraPart(a_RD=a_RD / 4, b_OR=b_OR / 8, scale=0.5 + seed / 4)
    return Lora(name=name, parts=parts)


def gates(seed: int) -> dict[str, Tensor]:
    """Return a random gate for each module."""
    random, model = torch.Generator().manual_seed(2000 + seed), base()
    return {path: torch.randn(model.get_submodule(path).in_features, generator=random) for path in paths()}


def pool(names: Sequence[str] = ("a", "b", "c"), *, execution: str = "fast") -> AdapterPool:
    """Return a pool of gated adapters with orthogonal global vectors; a name always means the same."""
    made = AdapterPool(model=base(), execution=execution)
    for name in names:
        seed = ord(name) - ord("a")
        made.add(lora(name, seed=seed))
        made.set_gate(name, gates(seed))
        made.describe(name, torch.eye(6)[seed])
    return made


@torch.no_grad()
def logits(made: AdapterPool, ids_BT: Tensor) -> Tensor:
    """Return the logits of the pool's model."""
    return made.model(ids_BT).logits


def peft_saved(folder: Path, **options: object) -> Path:
    """Write an adapter of the base by PEFT itself, with random B."""
    import peft

    settings: dict[str, object] = {
        "r": 4, "lora_alpha": 8, "target_modules": list(TARGETS), "init_lora_weights": False
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(len(folder.name))
        config = peft.LoraConfig(**(settings | options))
        peft.get_peft_model(base(), config).save_pretrained(str(folder))
    return folder


@torch.no_grad()
def peft_logits(folder: Path, ids_BT: Tensor) -> Tensor:
    """Return the logits that PEFT computes with the adapter in a folder."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(base(), str(folder))
    return model.eval()(ids_BT).logits
