"""This module reads a number out of a text that came over the wire: a header, or a query."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)


def number_of(text: str) -> float:
    """Return the number that decimal digits spell, or `inf`; raises `ValueError` for any other text.

    Python's own reading takes `1_0` for ten, and `nan` for a number.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"no number: {text!r}")
    return float(text)


def term_of(text: str) -> float:
    """Return the number of a dial, which may be `inf`: a right answer is worth any price."""
    return math.inf if text == "inf" else number_of(text)
