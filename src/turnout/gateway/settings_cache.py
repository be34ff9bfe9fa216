"""This module holds the settings of a rule's cache: which answers are given again, to whom, for how long."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.settings import Count, Name, Seconds, Settings, check_plain

_TEXT = "text"

Similarity = Annotated[float, msgspec.Meta(gt=0, le=1)]


class CacheSettings(Settings, frozen=True, kw_only=True):
    """Answers that are kept where the rule holds, and given again to who asks the same."""

    ttl_s: Seconds = 3600.0
    """Seconds for which an answer is given again."""
    similarity: Similarity | None = None
    """Cosine of two last user messages from which they count as the same; none asks for the same text."""
    embedder: Name = _TEXT
    """Registered embedder that reads the messages; goes with `similarity`."""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """Arguments of that embedder."""
    across_tenants: bool = False
    """Whether one tenant is given what another one was answered."""
    max_entries: Count = 1000
    """Answers that are kept; beyond them the one that was not asked for longest is forgotten."""
    max_mb: Annotated[float, msgspec.Meta(gt=0)] = 64.0
    """Megabytes of answers that are kept."""

    def check(self, where: str) -> None:
        """Raise `ConfigError` where an embedder is described that nobody asks."""
        check_plain(f"{where}.options", self.options)
        if self.similarity is not None or (self.embedder == _TEXT and not self.options):
            return
        raise ConfigError(
            sentence(
                f"the section '{where}' describes an embedder, and no 'similarity' that asks it",
                allowed="'embedder' and 'options' beside 'similarity'",
                do="set 'similarity', such as 0.9, or leave the two out: then the same text is asked for",
            )
        )
