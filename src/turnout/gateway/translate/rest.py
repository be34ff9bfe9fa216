"""This module treats the members of a request that have no translation of their own.

What both languages call the same is copied, hints that change no answer are left out, what changes an answer
and has no counterpart is refused by name, and a member that nobody here knows is passed on: it may be the
other language's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, final

import msgspec

from turnout.gateway.translate.refusal import plain, refuse, unreadable
from turnout.gateway.wire import Members

Item = TypeVar("Item")

CHAT_HINTS = frozenset(
    "user safety_identifier store metadata service_tier prediction prompt_cache_key prompt_cache_options"
    " prompt_cache_retention verbosity moderation".split()
)
"""Members of chat that change no answer, whoever gives it."""
CHAT_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
}
"""Members of chat that OpenAI's servers alone know, and what of them changes nothing."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """The members of one language, as another has to treat them."""

    language: str
    """What the other one is called."""
    copied: frozenset[str]
    hints: frozenset[str]
    neutral: Mapping[str, tuple[object, ...]]
    """Member -> the values that change nothing; any other is refused."""
    done: frozenset[str]
    """Members that are translated elsewhere."""

    def add(self, members: Members, body: dict[str, Any]) -> None:
        """Put into `body` what it shall have; raises `Fault` (400). A null says nothing."""
        for name, raw in members.items():
            if name in self.done or name in self.hints or bytes(raw) == b"null":
                continue
            if name in self.neutral:
                if plain(raw) not in self.neutral[name]:
                    raise refuse(name, self.language, bytes(raw))
            elif name in self.copied or name not in body:
                body[name] = raw


def read_list(members: Members, name: str, kind: type[Item]) -> list[Item]:
    """Return the items of a member, none where it is absent or null; raises `Fault` for another shape."""
    raw = members.get(name)
    if raw is None or bytes(raw) == b"null":
        return []
    try:
        return msgspec.json.decode(raw, type=list[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(name, error) from error
