"""This module trains the modules under random routing, then the routers under one global budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count, check_number
from turnout.nn.depth.duo.choices import BIG
from turnout.nn.depth.duo.flow import Record
from turnout.nn.depth.duo.model import DuoModel
from turnout.nn.tiny import Batch, train

Draw = Callable[[], Batch]


def train_modules(
    duo: DuoModel, draw: Draw, *, steps: int, lr: float = 1e-3, seed: int = 0, progress: Progress = silent
) -> list[float]:
    """Train base and small modules, each token and layer taking a uniformly random one; return the losses.

    Source: S22, Duo-LLM (arXiv 2410.10846), stage 1: p = 1/2, or 1/3 with skip. Routers do not move.
    Same seed, same choices.
    """
    fixed = {id(p) for layer in duo.layers for p in layer.router.parameters()}
    moving = [p for p in duo.model.parameters() if p.requires_grad and id(p) not in fixed]
    with duo.random(torch.Generator().manual_seed(seed)):
        return train(duo.model, draw, steps=steps, lr=lr, parameters=moving, progress=progress)


def budget_loss(chance_BTLA: Tensor, mask_BT: Tensor, *, target: float) -> Tensor:
    """Return (mean over all layers and tokens of P(big) - target)^2, a scalar.

    Source: S22, Duo-LLM (arXiv 2410.10846), stage 3. Global: which layers and tokens are big does not
    matter, only how many. Padding (`mask_BT` of 0) does not count.
    """
    if chance_BTLA.shape[:2] != mask_BT.shape:
        allowed = tuple(chance_BTLA.shape[:2])
        raise ShapeError(sentence("budget_loss: mask_BT", allowed=allowed, got=tuple(mask_BT.shape)))
    weight_BTL = mask_BT[..., None].to(chance_BTLA.dtype).expand(chance_BTLA.shape[:3])
    share = (chance_BTLA[..., BIG] * weight_BTL).sum() / weight_BTL.sum().clamp_min(1.0)
    return (share - target) ** 2


def temperature_at(step: int, steps: int, *, first: float, last: float) -> float:
    """Return the temperature of a step: geometric from `first` to `last`, so that mixtures harden."""
    return float(first * (last / first) ** (step / max(steps - 1, 1)))


def train_routers(
    duo: DuoModel,
    draw: Draw,
    *,
    target: float,
    steps: int,
    strength: float = 10.0,
    lr: float = 1e-2,
    temperatures: tuple[float, float] = (1.0, 0.02),
    progress: Progress = silent,
) -> list[float]:
    """Train the routers alone by soft mixtures under a global budget; return the losses.

    Source: S22, Duo-LLM (arXiv 2410.10846), stage 3: loss = LM + strength * `budget_loss`. The temperature
    falls from the first to the last of `temperatures`. `target` is the share of big modules over all layers
    and tokens. Sets `duo.is_routed`; from then on the model makes hard choices. Base and small modules do
    not move. Hard choices may miss the target, since a mixture can hold halves: `calibrate` mends that.
    """
    check_number("train_routers: target", target, low=0.0, high=1.0)
    check_number("train_routers: strength", strength, low=0.0)
    if len(temperatures) != 2:
        raise InputError(sentence("train_routers: temperatures", allowed="(first, last)", got=temperatures))
    first, last = (
        check_number("train_routers: temperature", t, low=0.0, allow_low=False) for t in temperatures
    )
    check_count("train_routers: steps", steps)
    moving = duo.router_parameters()
    before = {p: p.requires_grad for p in duo.model.parameters()}
    record, done = Record(), 0

    def next_batch() -> Batch:
        nonlocal done
        record.chances.clear()
        duo.flow.temperature = temperature_at(done, steps, first=first, last=last)
        done += 1
        return draw()

    def penalty(batch: Batch) -> Tensor:
        return strength * budget_loss(record.chance_BTLA, batch.attention_mask_BT, target=target)

    try:
        for parameter in before:
            parameter.requires_grad_(any(parameter is p for p in moving))
        with duo.soft(first), duo.recording_to(record):
            losses = train(
                duo.model,
                next_batch,
                steps=steps,
                lr=lr,
                parameters=moving,
                penalty=penalty,
                progress=progress,
            )
    finally:
        for parameter, is_moving in before.items():
            parameter.requires_grad_(is_moving)
    duo.is_routed = True
    return losses


@torch.no_grad()
def calibrate(duo: DuoModel, batches: Sequence[Batch], *, target: float, rounds: int = 4) -> float:
    """Shift the logit of big in all routers alike, until hard choices take `target` of big; return the share.

    Use texts that are not reported. A few rounds, since what a layer chooses changes what later ones see.
    This is the dial after training: no weight moves.
    """
    check_number("calibrate: target", target, low=0.0, high=1.0)
    if not any(bool(batch.attention_mask_BT.any()) for batch in batches):
        got = "padding alone" if batches else "none"
        raise InputError(sentence("calibrate: batches", allowed="at least one, with tokens", got=got))
    for _ in range(check_count("calibrate: rounds", rounds)):
        margin_N = _margins(duo, batches)
        ordered_N = margin_N.sort(descending=True).values
        count = round(target * len(ordered_N))
        # Halfway between the last token that shall be big and the first that shall not.
        above = ordered_N[count - 1] if count else ordered_N[0] + 2.0
        below = ordered_N[count] if count < len(ordered_N) else ordered_N[-1] - 2.0
        for layer in duo.layers:
            layer.router.shift_ -= (above + below) / 2
    return float((_margins(duo, batches) > 0).double().mean())


def _margins(duo: DuoModel, batches: Sequence[Batch]) -> Tensor:
    """Return the margins of big of all layers and tokens that are no padding, (N,)."""
    found = []
    for batch in batches:
        with duo.routed(), duo.recording() as record:
            duo.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, use_cache=False)
        found.append(record.margin_BTL[batch.attention_mask_BT.bool()].flatten())
    return torch.cat(found)
