"""This module says what a sequence may cost at most, before its first call: pure."""

from __future__ import annotations

from turnout.gateway.sequence_build import Sequence

_PROMPT_TOKENS = 1024
"""A policy's own instructions."""


def most_of_sequence(sequence: Sequence, *, input_tokens: int, output_tokens: int) -> float | None:
    """Return the most USD of all steps that the settings allow; None where nobody has a price card.

    Without a policy's model every step is a call with the question, of whoever is dearest. With one, a step's
    prompt holds what every step before it said, and a step is as dear as the dearest of all of them.

    Parameters
    ----------
    sequence:
        The sequencer.
    input_tokens:
        Most tokens of the request's messages.
    output_tokens:
        Most output tokens of a call to a candidate without a budget of its own.
    """
    steps = sequence.settings.max_steps
    if sequence.thinker is None:
        steps = min(steps, sequence.settings.max_calls or steps)
    asked = [*sequence.pool, *([] if sequence.thinker is None else [sequence.thinker])]
    dearest: list[float] = []
    for candidate in asked:
        if candidate.price_card is None:
            continue  # A call whose price is not known is refused under a bound.
        tokens_out = candidate.max_output_tokens or output_tokens
        tokens_in = input_tokens
        if sequence.thinker is not None:
            # What was said counts at two bytes a token, twice what it took; half of it at the middle step.
            tokens_in += _PROMPT_TOKENS + output_tokens * (steps - 1)
        dearest.append(candidate.price_card.usd(input_tokens=tokens_in, output_tokens=tokens_out))
    return steps * max(dearest) if dearest else None
