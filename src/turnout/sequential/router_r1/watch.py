"""This module reads a thought while it is written, for the part of its answer that may be told already."""

from __future__ import annotations

import re
from typing import final

from turnout.sequential.router_r1.parse import BrokenError, Grammar, Walk
from turnout.sequential.router_r1.tags import PASS_ON

_MAYBE = re.compile(r"<\s*/?\s*[A-Za-z0-9_-]*\s*\Z")
"""Matches what may become a tag yet."""


@final
class AnswerWatch:
    """Reads along; where `parse` finds an answer in the whole, what `feed` returned is a beginning of it.

    A text that breaks the protocol after its answer began has been told in part all the same.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._walk = Walk(grammar)
        self._text = ""
        self._at = 0
        """Up to here tags are read."""
        self._from = 0
        """Before this place no tag begins that is not read."""
        self._told = 0
        self._is_over = False

    def feed(self, piece: str) -> str:
        """Return what can be told of the answer now, and was not before; often nothing."""
        self._text += piece
        if self._is_over or len(self._text) > self._grammar.max_chars:
            return ""
        try:
            self._read()
        except BrokenError:
            self._is_over = True
            return ""
        if self._walk.inside != self._grammar.tags.answer:
            return ""
        told = self._sure(self._text[self._at :].lstrip())
        new, self._told = told[self._told :], max(self._told, len(told))
        return new

    def _read(self) -> None:
        """Walk over the tags that are whole; an action that ended is no news, its rest is told at the end."""
        pattern = self._grammar.tags.pattern
        while match := pattern.search(self._text, max(self._at, self._from)):
            self._walk.text(self._text[self._at : match.start()])
            if match.group(1):
                self._walk.close(match.group(2))
            else:
                self._walk.open(match.group(2))
            self._at = self._from = match.end()
        self._from = _whole(self._text)

    def _sure(self, content: str) -> str:
        """Return the part that will stand whatever comes: no blank end, no half tag, no half `[last]`."""
        content = content[: _whole(content)].rstrip()
        return "" if PASS_ON.startswith(content) else content


def _whole(text: str) -> int:
    """Return the length of a text without the half tag that may stand at its end."""
    opening = text.rfind("<")
    return opening if opening >= 0 and _MAYBE.match(text, opening) else len(text)
