"""This module finds the dial of a request: the client's as far as its key lets it, else the key's own."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.core.budget import Goal
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key
from turnout.gateway.select import DIALS, read_goal


def goal_of(
    headers: Sequence[tuple[bytes, bytes]], key: Key | None, dial: Goal | None = None
) -> tuple[Goal | None, str | None]:
    """Return the dial, and who set it where it was no header; (None, None) leaves it to the settings.

    A header comes before `dial`, which is the body's, and that before the key's own. Raises `ApiError`: 400
    for a header that is wrong, 403 for a dial that the key does not let its client set.
    """
    asked, whose = read_goal(headers), None
    if asked is None and dial is not None:
        asked, whose = dial, "the field 'metadata.turnout'"
    if key is None:
        return asked, whose
    if asked is None:
        return key.goal, None if key.goal is None else f"the goal of the key {key.name!r}"
    if key.dials is not None and asked.dial is not None and asked.dial not in key.dials:
        raise _not_allowed(key, asked.dial)
    return asked, whose


def _not_allowed(key: Key, term: str) -> ApiError:
    header = next(name.decode() for name, dial in DIALS.items() if dial == term)
    allowed = [name.decode() for name, dial in DIALS.items() if dial in (key.dials or ())]
    message = sentence(
        f"the key {key.name!r} may not set the dial by {header!r}",
        allowed=", ".join(allowed) or "the dial that the key or the gateway sets",
        do="leave the header out, or have the key's 'dials' widened",
    )
    return ApiError(403, message, code="dial_not_allowed", param=header)
