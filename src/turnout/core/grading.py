"""This module grades an answer beside its reference: pure functions of two texts, from 0 to 1.

They are rules, not judges: each says in its docstring what it counts as right. An answer in which a rule
finds nothing to compare is wrong, as one that says something else is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

Grade = Callable[[str, str], float]
"""Quality in [0, 1] of an answer beside its reference."""

_TOLERANCE = 1e-6
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
# A sign belongs to a number only where nothing stands before it: in "5-3" the second number is 3.
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?:(?<![\w.)])[-+])?(?:{_UNSIGNED})(?:\s*/\s*(?:{_UNSIGNED}))?")
# "The answer is A dog" names no letter, "the answer is A because" does.
_LETTER = (
    r"(?i:\s+is)?\s*:?\s*(?:\\boxed\{|\\text\{|[*_`\"'(\[\s])*"
    r"([A-Z])(?![A-Za-z'])(?!\s+(?!because\b|since\b|as\b|for\b|is\b)[a-z])"
)
_NAMED = tuple(re.compile(rf"\b(?i:{word}){_LETTER}") for word in ("answer", "(?:choice|option)"))
_LEADING = re.compile(r"[*_`\"'(\[\s]*([A-Z])(?:[)\].:*_`\"']|\s*\n|\s*$)")
_BRACKETED = re.compile(r"\(([A-Z])\)|\*\*\(?([A-Z])[).]?\*\*")


def exact(answer: str, reference: str) -> float:
    """Return 1 where the answer is the reference, apart from space around it."""
    return float(answer.strip() == reference.strip())


def contains(answer: str, reference: str) -> float:
    """Return 1 where the reference stands in the answer, in any case and spacing, and not inside a word."""
    wanted, text = _plain(reference), _plain(answer)
    if not wanted:
        return float(not text)
    left = r"(?<![a-z0-9])" if _is_ascii_word(wanted[0]) else ""
    right = r"(?![a-z0-9])" if _is_ascii_word(wanted[-1]) else ""
    return float(re.search(left + re.escape(wanted) + right, text) is not None)


def numeric(answer: str, reference: str) -> float:
    r"""Return 1 where the answer's number is the reference's, to one part in a million.

    That is the number in the last `\boxed{}`, where there is one, else the last number of the text. Thousands
    may be separated by commas, `3/4` is a fraction, and signs of currency and percent do not count.
    """
    said, wanted = last_number(answer), last_number(reference)
    if said is None or wanted is None:
        return 0.0
    return float(math.isclose(said, wanted, rel_tol=_TOLERANCE, abs_tol=1e-12))


def choice(answer: str, reference: str) -> float:
    """Return 1 where the answer chooses the reference's letter; a text that names no letter is wrong."""
    said, wanted = chosen_letter(answer), chosen_letter(reference)
    return float(said is not None and said == wanted)


def regex(answer: str, reference: str) -> float:
    """Return 1 where the reference, a regular expression, is found in the answer."""
    return float(re.search(reference, answer) is not None)


GRADES: Mapping[str, Grade] = {
    "exact": exact,
    "contains": contains,
    "numeric": numeric,
    "choice": choice,
    "regex": regex,
}
"""The rules by name."""


def last_number(text: str) -> float | None:
    r"""Return the number in the last `\boxed{}` of a text, else its last number, or None."""
    plain = text.replace("\u2212", "-")
    boxed = _BOXED.findall(plain)
    for part in [boxed[-1], plain] if boxed else [plain]:
        found = _NUMBER.findall(part)
        if found:
            return _value(found[-1])
    return None


def chosen_letter(text: str) -> str | None:
    r"""Return the letter that a text chooses, or None.

    In this order: the whole text, the last `\boxed{}`, the last "answer is B" or its like, the first line's
    beginning ("B. because"), the last letter in brackets or bold, and the last line where it is a letter.
    """
    stripped = text.strip()
    bare = stripped.strip("*_`\"'()[]. ")
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        return bare.upper()
    if boxed := _BOXED.findall(stripped):
        inner = re.sub(r"\\text\{(.*)\}", r"\1", boxed[-1]).strip(" ().")
        if len(inner) == 1 and inner.isascii() and inner.isalpha():
            return str(inner.upper())
    for pattern in _NAMED:
        if named := pattern.findall(stripped):
            return str(named[-1])
    if leading := _LEADING.match(stripped):
        return leading.group(1)
    if bracketed := _BRACKETED.findall(stripped):
        return "".join(bracketed[-1])
    last = stripped.splitlines()[-1].strip("*_`\"'()[]. ") if stripped else ""
    return last if len(last) == 1 and last.isascii() and last.isupper() else None


def _value(number: str) -> float | None:
    over, _, under = number.replace(",", "").replace(" ", "").partition("/")
    try:
        value = float(over) / float(under or 1)
    except ZeroDivisionError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_ascii_word(character: str) -> bool:
    return character.isascii() and character.isalnum()
