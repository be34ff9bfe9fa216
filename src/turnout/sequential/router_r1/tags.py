"""This module names the four tags of the protocol, and the text with which an answer is handed on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from turnout.core.errors import InputError, sentence

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """Names of the tags; the defaults are those of the paper (S7, Router-R1, arXiv 2506.09033)."""

    think: str = "think"
    """Around what the policy thinks."""
    route: str = "search"
    """Around a call: the model's name, a colon, the sub-query."""
    information: str = "information"
    """Around what came back; only the environment writes it."""
    answer: str = "answer"
    """Around the final answer."""

    def __post_init__(self) -> None:
        names = (self.think, self.route, self.information, self.answer)
        if len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
            raise InputError(
                sentence(
                    "Tags",
                    allowed="four different names of letters, digits, '-' and '_' that begin with a letter",
                    got=names,
                )
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All four names."""
        return (self.think, self.route, self.information, self.answer)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which the policy's writing ends: the ends of a call and of an answer."""
        return (f"</{self.route}>", f"</{self.answer}>")

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches every opening or closing tag; group 1 is `/` of a closing one, group 2 its name."""
        return _pattern(self.names)

    def defuse(self, text: str) -> str:
        """Return a text in which no tag is left, so that what came back cannot speak the protocol."""
        return self.pattern.sub(lambda match: "&lt;" + match.group(0)[1:], text)


@cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<\s*(/?)\s*({'|'.join(map(re.escape, names))})\s*>")


DEFAULT_TAGS = Tags()
"""The published tags."""

PASS_ON = "[last]"
"""The answer that hands on, word for word, what the last model said; an addition to the paper."""
