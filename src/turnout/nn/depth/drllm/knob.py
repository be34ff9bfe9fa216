"""This module moves a trained router's decisions toward fewer or more calls, without training."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.contract import EXECUTE, REPEAT, SKIP

NEUTRAL = -0.5
"""Where the published scale leaves the router alone; its 0 is half `execute`."""


def check_knob(where: str, knob: object) -> float:
    """Return `knob` if it lies in [-1, 1]; raises `InputError`."""
    if isinstance(knob, bool) or not isinstance(knob, int | float) or not -1.0 <= knob <= 1.0:
        raise InputError(sentence(f"{where}: knob", allowed="-1 (skip all) to 1 (repeat all)", got=knob))
    return float(knob)


def published_scale(knob: float) -> float:
    """Return the published p of a knob whose neutral point is 0: -1 -> -1, 0 -> -0.5, 1 -> 1."""
    return NEUTRAL + (0.5 * knob if knob < 0 else 1.5 * knob)


def blend(probability_BC: Tensor, p: float) -> Tensor:
    """Return q_BC, the probabilities moved by the published budget `p` in [-1, 1].

    From p = -1 (skip) to -0.5 (the router as it is) to 0.5 (execute) to 1 (repeat), linear between.

    Source: S12, the released code of Dr.LLM.
    """
    check_knob("blend", p)
    if p <= NEUTRAL:
        share = (p + 1.0) / 0.5
        q_BC = share * probability_BC
        q_BC.select(-1, SKIP).add_(1.0 - share)
    elif p <= 0.5:
        share = p + 0.5
        q_BC = (1.0 - share) * probability_BC
        q_BC.select(-1, EXECUTE).add_(share)
    else:
        share = (p - 0.5) / 0.5
        q_BC = torch.zeros_like(probability_BC)
        q_BC[..., EXECUTE] = 1.0 - share
        q_BC[..., REPEAT] = share
    return q_BC / q_BC.sum(dim=-1, keepdim=True)
