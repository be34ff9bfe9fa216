"""This module scores how much a text tries to lift the rules that stand before it.

Signs of a few families (override, persona, extraction, forged roles, smuggling), each with a weight;
independent signs add up as chances do: `1 - prod(1 - w)`. It reads what is written, in English, and nothing
between the lines: a paraphrase passes. A trained classifier (`TaskEmbedder`) can stand beside it.
"""

from __future__ import annotations

import re
from typing import final

from turnout.features.scanning import is_found

_I = re.IGNORECASE
_GAP = r"[^.!?\n]{0,40}"
_REACH = 512
"""More than the longest sign has: three words and two gaps."""

SIGNS: dict[str, tuple[float, re.Pattern[str]]] = {
    "override": (
        0.85,
        re.compile(
            r"\b(?:ignore|disregard|forget|override|bypass)\b"
            rf"{_GAP}\b(?:previous|prior|above|earlier|preceding|all|your|system|safety)\b"
            rf"{_GAP}\b(?:instruction|prompt|rule|guideline|direction|context|polic|filter|restriction)",
            _I,
        ),
    ),
    "persona": (
        0.7,
        re.compile(
            r"\b(?:do anything now|DAN mode|jailbr[eo]ak(?:en)?|developer mode|god mode|evil (?:mode|twin)"
            r"|unfiltered (?:ai|assistant|model)|(?:ai|assistant|model)[^.!?\n]{0,30}"
            r"\b(?:without|no) (?:any )?(?:restriction|limit|filter|rule|ethic|moral|censor))",
            _I,
        ),
    ),
    "unbound": (
        0.5,
        re.compile(
            rf"\b(?:you (?:are|have|will be)|act as if|pretend)\b{_GAP}"
            r"\b(?:no longer bound|free of all|freed from|no restrictions|no rules|not bound by"
            r"|no ethical|without restrictions)",
            _I,
        ),
    ),
    "extraction": (
        0.6,
        re.compile(
            rf"\b(?:reveal|print|show|repeat|output|leak|tell me|what (?:is|are|was))\b{_GAP}"
            r"\b(?:your|the)\b(?: \w{1,12}){0,2} (?:system prompt|initial (?:prompt|instructions)"
            r"|hidden (?:prompt|instructions)|instructions (?:above|verbatim|word for word)"
            r"|(?:text|words) above)",
            _I,
        ),
    ),
    "forged role": (
        0.8,
        re.compile(
            r"<\|(?:im_start|im_end|system|start_header_id)\|>|\[/?INST\]|<</?SYS>>|^#{2,64} ?system\b",
            _I | re.M,
        ),
    ),
    "refusal ban": (
        0.4,
        re.compile(
            rf"\b(?:never|do not|don't|must not|cannot)\b{_GAP}\b(?:refuse|say no|decline|warn|apologi[sz]e)",
            _I,
        ),
    ),
    "smuggling": (
        0.3,
        re.compile(
            rf"\b(?:decode|base64|rot13|hex)\b{_GAP}\b(?:and (?:then )?(?:follow|execute|do|obey|answer))", _I
        ),
    ),
}
"""Name of a family -> (its weight, what it looks like)."""


@final
class Suspicion(float):
    """A score in [0, 1], with the names of the signs behind it."""

    signs: tuple[str, ...]

    def __new__(cls, score: float, signs: tuple[str, ...]) -> Suspicion:
        """Return the score as a number that remembers its signs."""
        made = super().__new__(cls, score)
        made.signs = signs
        return made


def jailbreak_score(text: str) -> Suspicion:
    """Return how suspicious a text is; O(characters)."""
    signs = SIGNS.items()
    found = [(name, weight) for name, (weight, pattern) in signs if is_found(pattern, text, reach=_REACH)]
    innocent = 1.0
    for _, weight in found:
        innocent *= 1.0 - weight
    return Suspicion(1.0 - innocent, tuple(name for name, _ in found))
