"""This module trains one adapter of a pool, and the token gate of one adapter, and touches nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count, check_number
from turnout.nn.adapters.linear import AdapterLinear, Live
from turnout.nn.adapters.lora import Lora, LoraPart, scale_of
from turnout.nn.adapters.pool import AdapterPool
from turnout.nn.tiny import Batch, train

Draw = Callable[[], Batch]


def train_adapter(
    pool: AdapterPool,
    name: str,
    draw: Draw,
    *,
    rank: int = 8,
    alpha: float | None = None,
    steps: int = 200,
    lr: float = 5e-3,
    seed: int = 0,
    progress: Progress = silent,
) -> list[float]:
    """Train a LoRA adapter on batches from `draw`, add it to the pool, and return the loss of every step.

    A starts as in PEFT (Kaiming, a = sqrt 5), B at 0. The base and the other adapters stand aside. `alpha`
    is twice the rank unless given. An empty pool must have been given its `targets`.
    """
    check_count("train_adapter: rank", rank)
    alpha = check_number(
        "train_adapter: alpha", 2.0 * rank if alpha is None else alpha, low=0.0, allow_low=False
    )
    if not pool.sites:
        raise InputError(sentence("train_adapter: the pool's target modules", got="none", do="give targets="))
    scale = scale_of(alpha=alpha, rank=rank, is_rank_stabilised=False)
    generator = torch.Generator().manual_seed(seed)
    parts = {path: _fresh(site, rank, scale, generator) for path, site in pool.sites.items()}
    leaves = [tensor for part in parts.values() for tensor in (part.a_RD, part.b_OR)]
    # What the pool would refuse is not trained first.
    pool.check(_lora(name, parts))
    losses = _train(pool, parts, leaves, draw, steps=steps, lr=lr, progress=progress)
    pool.add(_lora(name, parts))
    return losses


def train_gate(
    pool: AdapterPool,
    name: str,
    draw: Draw,
    *,
    steps: int = 100,
    lr: float = 5e-3,
    progress: Progress = silent,
) -> list[float]:
    """Train the token gate of one adapter on batches of its own task; return the loss of every step.

    In training out = W u + sigmoid(v . u) s B A u, with v from 0 and nothing else moving (PHATGOOSE, arXiv
    2402.05859, section 3.1: 100 steps). No other adapter, gate or weight changes by a bit.
    """
    lora, index = pool.get(name), pool.names.index(name)
    parts = {}
    for path, site in pool.sites.items():
        parts[path] = Live(
            a_RD=site.a_ERD[index],
            b_OR=site.b_EOR[index],
            scale=lora.parts[path].scale,
            gate_D=torch.zeros_like(site.gate_ED[index]).requires_grad_(),
        )
    gates = {path: part.gate_D for path, part in parts.items() if part.gate_D is not None}
    losses = _train(pool, parts, list(gates.values()), draw, steps=steps, lr=lr, progress=progress)
    pool.set_gate(name, {path: gate_D.detach() for path, gate_D in gates.items()})
    return losses


def _lora(name: str, parts: Mapping[str, Live]) -> Lora:
    return Lora(
        name=name,
        parts={
            path: LoraPart(a_RD=part.a_RD.detach(), b_OR=part.b_OR.detach(), scale=part.scale)
            for path, part in parts.items()
        },
    )


def _train(
    pool: AdapterPool, parts: dict[str, Live], leaves: Sequence[Tensor], draw: Draw, **settings: Any
) -> list[float]:
    was_training = pool.model.training
    with pool.live(parts), _nothing_else_moves(pool.model):
        losses = train(
            cast(PreTrainedModel, pool.model),
            draw,
            parameters=cast(Sequence[nn.Parameter], leaves),
            weight_decay=0.0,
            **settings,
        )
    pool.model.train(was_training)
    return losses


def _fresh(site: AdapterLinear, rank: int, scale: float, generator: torch.Generator) -> Live:
    # Kaiming's uniform law with a = sqrt(5) is uniform in +-1 / sqrt(inputs).
    bound = 1 / math.sqrt(site.in_features)
    a_RD = (torch.rand(rank, site.in_features, generator=generator) * 2 - 1) * bound
    b_OR = site.b_EOR.new_zeros(site.out_features, rank)
    return Live(a_RD=a_RD.to(b_OR).requires_grad_(), b_OR=b_OR.requires_grad_(), scale=scale)


@contextmanager
def _nothing_else_moves(model: nn.Module) -> Iterator[None]:
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
