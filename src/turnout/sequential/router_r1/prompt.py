"""This module writes the policy's prompt: the rules of the protocol in our own words, and the pool."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.sequential.router_r1.describe import Description
from turnout.sequential.router_r1.tags import DEFAULT_TAGS, PASS_ON, Tags


def system_text(
    candidates: Sequence[str],
    descriptions: Sequence[Description] = (),
    *,
    tags: Tags = DEFAULT_TAGS,
    max_turns: int = 4,
    sub_queries: bool = True,
) -> str:
    """Return the system message; candidates without a description are listed by name alone."""
    lines = dict(descriptions)
    pool = [f"- {name}: {lines[name]}" if name in lines else f"- {name}" for name in candidates]
    call = "Model: sub-query" if sub_queries else "Model"
    asks = (
        "The sub-query must make sense on its own: the model sees nothing else."
        if sub_queries
        else "The model is asked the whole question."
    )
    think, route, information, answer = tags.names
    return "\n".join(
        [
            "You answer a question, alone or with the help of the models listed below.",
            f"First reason inside <{think}></{think}>. Then take exactly one of two actions and stop:",
            f"1. <{route}>{call}</{route}> asks one model of the list, named exactly as it stands there. "
            f"{asks} What it says comes back inside <{information}></{information}>; never write that tag "
            "yourself.",
            f"2. <{answer}>final answer</{answer}> ends the task. Give the answer and nothing else;"
            f" <{answer}>{PASS_ON}</{answer}> hands on, word for word, what the last model said.",
            f"You may ask at most {max_turns} times. Asking costs money: ask only where it makes the answer "
            "better, and prefer the cheapest model that is good enough.",
            "Models:",
            *pool,
        ]
    )
