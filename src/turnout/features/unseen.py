"""This module takes out of a text what no reader sees, and knows where everything stood.

A zero-width space inside an address hides it from a pattern, not from whoever reads it. Taken out are the
characters that Unicode calls default ignorable (DerivedCoreProperties, `Default_Ignorable_Code_Point`); wide
forms of ASCII (U+FF01 to U+FF5E) become ASCII.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import final

from turnout.features.scanning import find_each, is_found

_RUN = 4096
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    f"\U000e0000-\U000e0fff]{{1,{_RUN}}}"
)
_WIDE = re.compile("[\uff01-\uff5e]")
_NARROWED = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}


@final
class Cleared:
    """A text without what is not seen.

    Parameters
    ----------
    text:
        What is left.
    cuts:
        Where in it something was taken out, ascending, and how many characters so far.
    """

    def __init__(self, *, text: str, cuts: list[tuple[int, int]]) -> None:
        self.text = text
        self._places = [place for place, _ in cuts]
        self._taken = [0, *(taken for _, taken in cuts)]

    def origin(self, place: int) -> int:
        """Return where a character of the text stood before."""
        return place + self._taken[bisect_right(self._places, place)]


def cleared(text: str) -> Cleared | None:
    """Return the text without what is not seen; None where all of it is seen, and none is wide."""
    if text.isascii():
        return None
    parts, cuts = list[str](), list[tuple[int, int]]()
    place = taken = 0
    for match in find_each(_UNSEEN, text, reach=2 * _RUN):
        parts.append(text[place : match.start()])
        cuts.append((match.start() - taken, taken + match.end() - match.start()))
        place, taken = match.end(), cuts[-1][1]
    is_wide = is_found(_WIDE, text, reach=2)
    if not cuts and not is_wide:
        return None
    rest = "".join([*parts, text[place:]])
    return Cleared(text=rest.translate(_NARROWED) if is_wide else rest, cuts=cuts)


def without_unseen(text: str) -> str:
    """Return the text without what is not seen."""
    found = cleared(text)
    return text if found is None else found.text
