"""This module balances experts by a bias on their choice scores that no gradient reaches.

Source: S174, Loss-Free Balancing (arXiv 2408.15664), algorithm 1; S190 (arXiv 2512.03915) for why it works:
one step per batch of a primal-dual method, b = -p with p the price of an expert's time. It is the update of
`turnout.core.prices` on tensors; a test compares the two bit by bit.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.exact_buffers import ExactBuffers

Rule = Literal["sign", "violation", "relative"]
Schedule = Literal["constant", "inverse_sqrt", "inverse"]


class LossFreeBias(ExactBuffers):
    """Counts loads, and after each optimiser step moves a bias against them.

    Parameters
    ----------
    num_experts
        E.
    step
        Length u of the first step, in units of the choice score.
    rule
        `sign`: u sign(target - load), as published. `relative`: u (target - load) / target, the variant of
        its section 4. `violation`: u (target - load), the plain dual step.
    schedule
        What divides u at the n-th update: 1, sqrt(n) or n. `inverse` is the one with logarithmic regret in
        S190; the others follow a load that drifts.
    is_centred
        Whether the mean of each change is taken away, so that the sum of the bias stays what it was. The
        choice depends on differences alone.
    quota_E
        The share of all choices that each expert should have, summing to 1; None for equal shares.

    `observe` is called with each micro-batch's load, `update` once after an optimiser step. Under activation
    checkpointing the forward pass runs twice: observe in the first alone.
    """

    load_E: Tensor
    num_updates: Tensor

    def __init__(
        self,
        *,
        num_experts: int,
        step: float = 1e-3,
        rule: Rule = "sign",
        schedule: Schedule = "constant",
        is_centred: bool = True,
        quota_E: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_count("LossFreeBias: num_experts", num_experts)
        check_number("LossFreeBias: step", step, low=0.0, allow_low=False)
        if rule not in ("sign", "violation", "relative"):
            raise InputError(sentence("LossFreeBias: rule", allowed="sign, violation, relative", got=rule))
        if schedule not in ("constant", "inverse_sqrt", "inverse"):
            raise InputError(
                sentence("LossFreeBias: schedule", allowed="constant, inverse_sqrt, inverse", got=schedule)
            )
        if quota_E is not None:
            _check_quota(quota_E, num_experts)
        self.num_experts, self.step, self.rule, self.schedule = num_experts, step, rule, schedule
        self.is_centred, self.quota_E = is_centred, quota_E
        self.exact_buffer("load_E", torch.zeros(num_experts, dtype=torch.float64))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, load_E: Tensor) -> None:
        """Add the load (E,) of a micro-batch; padding must not be in it."""
        if tuple(load_E.shape) != (self.num_experts,):
            got = tuple(load_E.shape)
            raise ShapeError(sentence("observe: load_E", allowed=f"(E,) = ({self.num_experts},)", got=got))
        self.load_E += load_E.to(self.load_E)

    @torch.no_grad()
    def update(self, bias_E: Tensor) -> None:
        """Move `bias_E` (E,) in place by what was observed since the last update, and forget it.

        Raises `InputError` for a bias of half precision, which would swallow the steps, and for loads that
        are no numbers; `ShapeError` for a bias of another length.
        """
        if tuple(bias_E.shape) != (self.num_experts,):
            got = tuple(bias_E.shape)
            raise ShapeError(sentence("update: bias_E", allowed=f"(E,) = ({self.num_experts},)", got=got))
        if bias_E.dtype not in (torch.float32, torch.float64):
            raise InputError(sentence("update: bias_E", allowed="float32 or float64", got=bias_E.dtype))
        if not bool(self.load_E.any()):
            return
        if not bool(self.load_E.isfinite().all()):
            observed = self.load_E.tolist()
            self.load_E.zero_()
            raise InputError(sentence("update: what was observed", allowed="finite loads", got=observed))
        self.num_updates += 1
        mean = self.load_E.mean()
        target_E = mean if self.quota_E is None else self.load_E.sum() * self.quota_E.to(self.load_E)
        change_E = self._direction(target_E) * self.step_now()
        if self.is_centred:
            change_E = change_E - change_E.mean()
        bias_E += change_E.to(bias_E)
        self.load_E.zero_()

    def step_now(self) -> float:
        """Return the length of the step of this update."""
        n = max(int(self.num_updates), 1)
        divisors = {"constant": 1.0, "inverse_sqrt": math.sqrt(n), "inverse": float(n)}
        return self.step / divisors[self.schedule]

    def _direction(self, target_E: Tensor) -> Tensor:
        short_E = target_E - self.load_E
        if self.rule == "sign":
            return short_E.sign()
        if self.rule == "relative":
            # Without a quota nothing is due, so nothing can be short of it.
            return torch.where(target_E > 0, short_E / target_E, short_E.sign())
        return short_E


def _check_quota(quota_E: Tensor, num_experts: int) -> None:
    if tuple(quota_E.shape) != (num_experts,):
        got = tuple(quota_E.shape)
        raise ShapeError(sentence("LossFreeBias: quota_E", allowed=f"(E,) = ({num_experts},)", got=got))
    if bool((quota_E < 0).any()) or abs(float(quota_E.double().sum()) - 1) > 1e-4:
        raise InputError(
            sentence("LossFreeBias: quota_E", allowed="shares that sum to 1", got=quota_E.tolist())
        )
