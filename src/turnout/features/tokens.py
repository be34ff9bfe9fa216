"""This module cuts a text into tokens, and a token into character n-grams.

A token is a word in lower case, a number, one sign, or one character of a script that is written without
spaces (Han, kana), so that pairs of tokens are character pairs there. Character n-grams carry what a
vocabulary has never seen: inflections, rare names, Thai, Korean, misspellings.
"""

from __future__ import annotations

import re

# Han (with extensions A and B to F) and kana: scripts without spaces, where one character is one token.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef"
# The same for plain ASCII, which is most prompts, at half the time.
_ASCII_TOKEN = re.compile(r"[a-z]+|[^a-z0-9\s_]|[0-9]+|_+", re.ASCII)
# No character begins two of the kinds, so they stand in the order of how often they are met.
_TOKEN = re.compile(rf"[^\W\d_{_UNSPACED}]+|[^\w\s]|[{_UNSPACED}]|\d+|_+")


def clip(text: str, max_chars: int) -> str:
    """Return at most `max_chars` characters: the first half and the last half of a longer text.

    Both ends, because instructions stand at the start of a long prompt or behind a pasted document.
    """
    if len(text) <= max_chars:
        return text
    head = (max_chars + 1) // 2
    tail = max_chars - head
    return text[:head] + (" " + text[-tail:] if tail else "")


def split(text: str) -> list[str]:
    """Return the tokens of `text` in order; any string is fine, lone surrogates included."""
    lowered = text.lower()
    return (_ASCII_TOKEN if lowered.isascii() else _TOKEN).findall(lowered)


def grams(word: str, low: int, high: int) -> list[str]:
    """Return the character n-grams of `word` between its edges `<` and `>`, lengths `low` to `high`.

    Empty where `high` is 0; a word shorter than `low - 2` has none.
    """
    framed = f"<{word}>"
    return [
        framed[start : start + size]
        for size in range(max(low, 1), high + 1)
        for start in range(len(framed) - size + 1)
    ]
