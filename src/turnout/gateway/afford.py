"""This module says what an answer may cost at most, before anybody is asked: pure."""

from __future__ import annotations

import math

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.wire import ChatRequest

TOKENS_PER_ESTIMATE = 2
"""Tokens that are reserved per estimated token of input: at 2 characters a token, few texts need more."""

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def most_output_tokens(request: ChatRequest, candidate: Candidate | None, otherwise: int) -> int:
    """Return the most tokens of all answers to a request; `otherwise` where nobody sets a limit."""
    asked = [tokens for name in _LIMITS if (tokens := _whole(request, name)) is not None]
    if candidate is not None and candidate.max_output_tokens is not None:
        asked.append(candidate.max_output_tokens)
    return min(asked, default=otherwise) * max(1, _whole(request, "n") or 1)


def most_usd(request: ChatRequest, candidate: Candidate, otherwise: int) -> float | None:
    """Return the most that an answer may cost in USD, or None where the candidate has no price card."""
    card = candidate.price_card
    if card is None:
        return None
    tokens_out = most_output_tokens(request, candidate, otherwise)
    return card.usd(input_tokens=TOKENS_PER_ESTIMATE * request.input_tokens + 16, output_tokens=tokens_out)


def prompt_usd(request: ChatRequest, candidate: Candidate) -> float:
    """Return what the prompt alone costs by the estimate of its length; 0 without a price card."""
    card = candidate.price_card
    return 0.0 if card is None else card.usd(input_tokens=request.input_tokens, output_tokens=0)


def _whole(request: ChatRequest, name: str) -> int | None:
    """Return a whole number of the body; what is none is the upstream's business."""
    raw = request.members.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=float)
    except msgspec.DecodeError:
        return None
    return int(value) if math.isfinite(value) and value >= 0 else None
