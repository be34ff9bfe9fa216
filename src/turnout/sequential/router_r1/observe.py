"""This module writes what came back as the policy sees it: cut to a length, and without protocol tags."""

from __future__ import annotations

from typing import Protocol

from turnout.sequential.router_r1.tags import DEFAULT_TAGS, Tags

CHARS_PER_TOKEN = 4
"""Characters that stand for a token where no tokenizer is given."""

CUT = " [cut]"
"""Marks an observation that was longer."""


class TextTokenizer(Protocol):
    """What is needed of a tokenizer; those of `transformers` and `tokenizers` wrappers fit."""

    def encode(self, text: str, /) -> list[int]:
        """Return the text's tokens."""

    def decode(self, ids: list[int], /) -> str:
        """Return the tokens' text."""


def truncate(text: str, *, max_tokens: int, tokenizer: TextTokenizer | None = None) -> str:
    """Return the beginning of a text, at most `max_tokens` tokens (S7 cuts observations at 600).

    Without a tokenizer a token counts as four characters.
    """
    if tokenizer is None:
        limit = max_tokens * CHARS_PER_TOKEN
        return text if len(text) <= limit else text[:limit].rstrip() + CUT
    ids = tokenizer.encode(text)
    return text if len(ids) <= max_tokens else tokenizer.decode(ids[:max_tokens]).rstrip() + CUT


def information(
    text: str,
    *,
    tags: Tags = DEFAULT_TAGS,
    max_tokens: int = 600,
    tokenizer: TextTokenizer | None = None,
) -> str:
    """Return an information block; tags inside `text` are defused."""
    shown = truncate(tags.defuse(text).strip(), max_tokens=max_tokens, tokenizer=tokenizer)
    return f"<{tags.information}>{shown}</{tags.information}>"
