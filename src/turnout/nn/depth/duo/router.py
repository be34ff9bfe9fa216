"""This module is the trained router of one layer: which module should each token take?"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from turnout.core.errors import ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.exact_buffers import ExactBuffers


@final
class DuoRouter(ExactBuffers):
    """Chooses small, big or skip for every token from the input of the feed-forward.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.3: r(x) = softmax(W_r x) over the choices.
    Differs: an optional bias; a learned `shift_` of the logit of big, set by `calibrate` after training, so
    that the share of hard choices is the one asked for; computed in single precision.
    Shapes: x (..., D) to (..., A), A = 2 (small, big) or 3 (and skip).
    Cost: 2 D A operations a token.

    Example
    -------
    >>> import torch
    >>> router = DuoRouter(width=8)
    >>> router.choose(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3])
    """

    def __init__(self, *, width: int, num_choices: int = 2, bias: bool = False, seed: int = 0) -> None:
        super().__init__()
        check_count("DuoRouter: width", width)
        check_count("DuoRouter: num_choices", num_choices, low=2, high=3)
        generator = torch.Generator().manual_seed(seed)
        # The scale that makes the first logits small beside 1: every choice starts with a fair part.
        first = torch.randn(num_choices, width, generator=generator) * (0.1 / math.sqrt(width))
        self.weight_AD = nn.Parameter(first)
        self.bias_A = nn.Parameter(torch.zeros(num_choices), requires_grad=bias)
        self.shift_: Tensor
        # A shift of a hundredth decides shares, and half precision holds none of that beside a logit of 8.
        self.exact_buffer("shift_", torch.zeros(()))

    def forward(self, x_TD: Tensor) -> Tensor:
        """Return the logits (..., A), with the shift of big; float32."""
        if x_TD.shape[-1] != self.weight_AD.shape[1]:
            allowed = f"(..., D) with D = {self.weight_AD.shape[1]}"
            raise ShapeError(sentence("DuoRouter: x_TD", allowed=allowed, got=tuple(x_TD.shape)))
        # The weights too: a model that is moved to half precision takes its routers along.
        logits_TA = nn.functional.linear(x_TD.float(), self.weight_AD.float(), self.bias_A.float())
        is_big_A: Tensor = torch.arange(logits_TA.shape[-1], device=logits_TA.device) == 1
        shifted_TA: Tensor = logits_TA + self.shift_ * is_big_A
        return shifted_TA

    def probabilities(self, x_TD: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return softmax(logits / temperature), (..., A); a low temperature hardens it toward `choose`."""
        check_number("DuoRouter: temperature", temperature, low=0.0, allow_low=False)
        return torch.softmax(self(x_TD) / temperature, dim=-1)

    def choose(self, x_TD: Tensor) -> Tensor:
        """Return the likeliest choice of every token, int64 (...); ties go to the first, which is small."""
        return torch.argmax(self(x_TD), dim=-1)
