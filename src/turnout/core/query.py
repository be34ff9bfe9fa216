"""This module describes what is routed: a query, and never its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from turnout.core.validation import check_count, check_name, check_text

_MEDIA = frozenset({"vision", "audio"})
"""Capabilities of a candidate that is shown more than text."""
_NUMBERS = re.compile(r"[-+.,\seE\d]*\d[-+.,\seE\d]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One request as a router sees it before anybody has answered."""

    id: str
    """Identity inside its table or log."""
    text: str | None
    """What a router may read; None means it was not recorded (a router must then do without)."""
    task: str | None = None
    """The group it belongs to (a benchmark, a tenant, a category), where that is known."""
    num_turns: int = 1
    """Number of user turns in the conversation."""
    input_tokens: int | None = None
    """Tokens of the whole request; None means unknown."""
    needs: frozenset[str] = frozenset()
    """Capabilities a candidate must have (`tools`, `vision`, ...)."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Anything else known before the call."""

    def __post_init__(self) -> None:
        if self._is_plain():
            return
        check_name("Query.id", self.id)
        if self.text is not None:
            check_text(f"Query.text of {self.id!r}", self.text)
        check_count(f"Query.num_turns of {self.id!r}", self.num_turns, low=0)
        if self.input_tokens is not None:
            check_count(f"Query.input_tokens of {self.id!r}", self.input_tokens, low=0)
        object.__setattr__(self, "needs", frozenset(self.needs))

    def _is_plain(self) -> bool:
        """Whether nothing needs a look, at a fifth of its price: a gateway makes one of these a request."""
        text, tokens = self.text, self.input_tokens
        return (
            type(self.id) is str
            and self.id.strip() != ""
            and (text is None or type(text) is str)
            and type(self.num_turns) is int
            and self.num_turns >= 0
            and (tokens is None or (type(tokens) is int and tokens >= 0))
            and type(self.needs) is frozenset
        )

    @property
    def words(self) -> str:
        """The text, or the empty string where none was recorded."""
        return self.text or ""

    @property
    def content(self) -> str | None:
        """What tells it from others: its text, and the numbers in its tags where an image is asked about.

        The same question about two images is two queries; what is known of an image stands in tags
        (`features.ColumnsEmbedder`). Of a query that needs neither vision nor audio the text is all.
        """
        if not self.tags or not self.needs & _MEDIA:
            return self.text
        shown = [f"{name} {value}" for name, value in sorted(self.tags.items()) if _NUMBERS.fullmatch(value)]
        return "\n".join([self.words, *shown])
