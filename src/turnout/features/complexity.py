"""This module scores how much work a request asks for, from its form alone."""

from __future__ import annotations

import math
import re

from turnout.features.signals import CODE
from turnout.features.tokens import clip

_MAX_CHARS = 8_000
_REASON = re.compile(
    r"\b(?:prove|derive|why|explain|analy[sz]e|compare|evaluate|design|implement|optimi[sz]e|debug|refactor"
    r"|step by step|trade-?offs?|justify|reason|plan|strategy|algorithm|theorem|integral|complexity)\b",
    re.IGNORECASE,
)
_STEPS = re.compile(
    r"\b(?:then|after that|finally|first|second|next|also|additionally)\b|^\s*(?:\d+[.)]|[-*]) ", re.I | re.M
)
_BOUNDS = re.compile(
    r"\b(?:at least|at most|exactly|no more than|must|should|without|only|each|every|unless)\b", re.I
)
_MATH = re.compile(r"[=+*/^<>\\$\u2211\u222b\u221a]|\d")
_SIMPLE = re.compile(
    r"^\s*(?:hi|hello|hey|thanks?|thank you|ok(?:ay)?|yes|no|good (?:morning|evening|night))\b[\s!.,?]*$",
    re.I,
)

WEIGHTS = {
    "bias": -2.2,
    "log_words": 0.35,
    "reason": 0.9,
    "steps": 0.5,
    "bounds": 0.4,
    "code": 0.6,
    "math": 0.5,
}
"""Weights of the logistic score. Set by hand, not learned: nobody's outcomes are in them."""


def complexity(text: str) -> float:
    """Return a score in [0, 1]: longer, more steps, more conditions, code and formulas count as more work.

    A prior for rules of a deployment that has learned nothing yet; a fitted router knows more.
    """
    if _SIMPLE.match(text):
        return 0.0
    whole, text = text, clip(text, _MAX_CHARS)
    score = (
        WEIGHTS["bias"]
        + WEIGHTS["log_words"] * math.log1p(len(whole) / 6)
        + WEIGHTS["reason"] * _few(_REASON, text)
        + WEIGHTS["steps"] * _few(_STEPS, text)
        + WEIGHTS["bounds"] * _few(_BOUNDS, text)
        + WEIGHTS["code"] * _few(CODE, text)
        + WEIGHTS["math"] * min(1.0, 5 * len(_MATH.findall(text)) / max(len(text), 1))
    )
    return 1.0 / (1.0 + math.exp(-score))


def code_share(text: str) -> float:
    """Return marks of program text per word, at most 1; above about 0.1 it is code."""
    return min(1.0, len(CODE.findall(clip(text, _MAX_CHARS))) / max(len(text.split()), 1))


def _few(pattern: re.Pattern[str], text: str) -> float:
    """Return how often a pattern occurs, flattened: the first two occurrences say most."""
    return min(2.0, math.log2(1 + len(pattern.findall(text))))
