"""This module says what an answer may cost at most, before anybody is asked: pure."""

from __future__ import annotations

from turnout.core.candidate import Candidate
from turnout.gateway.cache_prices import with_writes
from turnout.gateway.stream import MOST_TOKENS
from turnout.gateway.wire import ChatRequest, number_of

TOKENS_PER_ESTIMATE = 2
"""Tokens that are reserved per estimated token of input: at 2 characters a token, few texts need more."""


def most_output_tokens(request: ChatRequest, candidate: Candidate | None, otherwise: int) -> int:
    """Return the most tokens of all answers to a request; `otherwise` where nobody sets a limit.

    Only what the request's API reads is a limit, and of two that it reads the larger one: nobody knows which
    of them an upstream goes by.
    """
    asked = [tokens for name in request.limits if (tokens := _count(request, name)) is not None]
    # Several servers read -1 as no limit.
    is_unlimited = any((number_of(request.members, name) or 0) < 0 for name in request.limits)
    limits = [max(asked)] if asked and not is_unlimited else []
    if candidate is not None and candidate.max_output_tokens is not None:
        limits.append(candidate.max_output_tokens)
    return min(MOST_TOKENS, min(limits, default=otherwise) * (_count(request, "n") or 1))


def most_usd(request: ChatRequest, candidate: Candidate, otherwise: int) -> float | None:
    """Return the most that an answer may cost in USD, or None where the candidate has no price card."""
    card = candidate.price_card
    if card is None:
        return None
    tokens_out = most_output_tokens(request, candidate, otherwise)
    tokens_in = TOKENS_PER_ESTIMATE * request.input_tokens + 16 + request.kept_tokens
    if not any(b"cache_control" in bytes(raw) for raw in request.members.values()):
        return card.usd(input_tokens=tokens_in, output_tokens=tokens_out)
    # All of it may be written to a cache, and for an hour.
    return with_writes(card).usd(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        written_tokens=tokens_in,
        written_1h_tokens=tokens_in,
    )


def _count(request: ChatRequest, name: str) -> int | None:
    """Return a count of the body, at least 1; what is none is the upstream's business."""
    number = number_of(request.members, name)
    return int(min(number, MOST_TOKENS)) if number is not None and number >= 1 else None
