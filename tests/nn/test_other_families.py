"""The systems inside a model, on families that none of their own tests names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from turnout.nn.adapters import AdapterPool, GliderRouter, Lora, LoraPart, PhatgooseRouter
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.duo import DuoModel
from turnout.nn.testtime.rewiring import Rewiring

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
}
DENSE = ("smollm3", "cohere2")
MIXTURES = ("flex_olmo", "dots1")
IDS = torch.randint(4, 48, (3, 8), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[1, :3] = 0
VECTORS = torch.eye(3)


def make(family: str) -> Any:
    sizes = SIZES | (EXPERTS if family in MIXTURES else {})
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
    return model


def answers(model: Any, **options: Any) -> torch.Tensor:
    given = {"attention_mask": MASK, "max_new_tokens": 5, "do_sample": False, "eos_token_id": None, **options}
    found: torch.Tensor = model.generate(input_ids=IDS, **given)
    return found


def random_lora(pool: AdapterPool, name: str, seed: int) -> Lora:
    random = torch.Generator().manual_seed(seed)
    parts = {
        path: LoraPart(
            a_RD=torch.randn(4, site.in_features, generator=random) / 4,
            b_OR=torch.randn(site.out_features, 4, generator=random) / 4,
            scale=1.0,
        )
        for path, site in pool.sites.items()
    }
    return Lora(name=name, parts=parts)


@pytest.mark.parametrize("family", DENSE + MIXTURES)
def test_depth_by_sequence(family: str) -> None:
    model = make(family)
    base_BT = answers(model)
    routed = RoutedDepth(model=model)
    assert torch.equal(answers(model), base_BT)
    with routed.forced([[1, 0, 2, 1], [0, 1, 1, 2], [1, 1, 0, 0]]):
        cached_BT = answers(model)
        assert torch.equal(cached_BT, answers(model, use_cache=False))
    assert not torch.equal(cached_BT, base_BT)
    assert torch.equal(answers(routed.unwrap()), base_BT)


@pytest.mark.parametrize("family", DENSE)
def test_sizes_of_modules(family: str) -> None:
    model = make(family)
    base_BT = answers(model)
    duo = DuoModel(model, allow_skip=True)
    assert torch.equal(answers(model), base_BT)
    with duo.forced([[0, 1, 2, 1], [2, 1, 1, 0], [1, 0, 0, 1]]):
        cached_BT = answers(model)
        assert torch.equal(cached_BT, answers(model, use_cache=False))
        smaller_BTV = model(input_ids=IDS).logits
    assert not torch.equal(model(input_ids=IDS).logits, smaller_BTV)
    assert torch.equal(answers(duo.unwrap()), base_BT)


@pytest.mark.parametrize("family", DENSE)
def test_adapters(family: str) -> None:
    model = make(family)
    base_BT = answers(model)
    pool = AdapterPool(model=model, targets=["q_proj", "down_proj"])
    for seed, name in enumerate(("a", "b")):
        pool.add(random_lora(pool, name, seed))
        pool.set_gate(name, {path: torch.ones(site.in_features) for path, site in pool.sites.items()})
        pool.describe(name, VECTORS[seed])
    with pool.only(["a", "b", None]):
        mixed_BT = answers(model)
    for row, name in enumerate(("a", "b")):
        with pool.only(name):
            assert torch.equal(answers(model)[row], mixed_BT[row])
    assert torch.equal(mixed_BT[2], base_BT[2])
    options: dict[str, Any] = {
        "attention_mask": MASK,
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": None,
    }
    plain_BT = pool.generate(IDS, router=PhatgooseRouter(), **options)
    zero_BT = pool.generate(IDS, router=GliderRouter(alpha=0.0), queries=VECTORS, **options)
    assert torch.equal(zero_BT, plain_BT)
    pool.close()
    assert torch.equal(answers(model), base_BT)


@pytest.mark.parametrize("family", MIXTURES)
def test_rewiring(family: str) -> None:
    model = make(family)
    base_BT = answers(model)
    still = Rewiring(model=model, steps=0, every_tokens=2)
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert torch.equal(still.generate(IDS, MASK, **options).sequences_BT, base_BT)
    found = Rewiring(model=model, layers="all").adapt(IDS, MASK)
    assert found.loss_SB[-1].mean() < found.loss_SB[0].mean()
    assert torch.equal(answers(model), base_BT)
