"""This module looks for a pattern in a long text piece by piece, so that other threads have their turn.

One call of a pattern holds the interpreter until it ends: in a text of some megabytes that is a pause of
every other thread. A piece takes about a millisecond, and between two pieces others may go on. What is found
is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE = 16_384
"""Characters in which a find of one call may begin."""


def find_each(pattern: re.Pattern[str], text: str, *, reach: int) -> Iterator[re.Match[str]]:
    """Yield what `pattern.finditer` does; `reach` is above the most characters of a find.

    The pattern finds nothing empty.
    """
    place, length = 0, len(text)
    while place < length:
        stop = place + PIECE
        match = pattern.search(text, place, min(length, stop + reach))
        if match is None or match.start() >= stop:
            place = stop
        else:
            yield match
            place = match.end()


def is_found(pattern: re.Pattern[str], text: str, *, reach: int) -> bool:
    """Whether the pattern is found in the text."""
    return any(True for _ in find_each(pattern, text, reach=reach))
