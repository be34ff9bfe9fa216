"""This module says how long to wait before another try, and whether there may be one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import final

from turnout.gateway.number import number_of

_MIN_TOKENS = 10.0
_MOST_TOKENS = 10 * _MIN_TOKENS


@final
class Allowance:
    """A share of all requests: each adds a part of a token, each extra call takes a whole one.

    So extra load is bounded by `share` when everything fails at once, and a quiet gateway still has some
    calls to spare (Finagle's retry budget).

    Parameters
    ----------
    share:
        Extra calls per request, in the long run.
    """

    __slots__ = ("_tokens", "share")

    def __init__(self, *, share: float) -> None:
        self.share = share
        self._tokens = _MIN_TOKENS if share > 0 else 0.0

    def earn(self) -> None:
        """Count a request."""
        if self._tokens < _MOST_TOKENS:
            self._tokens = min(self._tokens + self.share, _MOST_TOKENS)

    def spend(self) -> bool:
        """Take leave for one extra call, if there is any left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def backoff_s(number: int, first_s: float, chance: random.Random) -> float:
    """Return the wait before retry `number` (from 0): it doubles, and lies anywhere in its upper half.

    Without chance, all clients of an upstream that came back would ask it again in the same instant.
    """
    longest_s = first_s * 2.0 ** min(number, 10)
    return longest_s * (0.5 + 0.5 * chance.random())


def read_retry_after(headers: Iterable[tuple[bytes, bytes]], now_s: float) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` (seconds or a date) ask for, else None."""
    found = {
        name: value.decode("latin-1").strip() for name, value in headers if name.startswith(b"retry-aft")
    }
    if (ms := _number(found.get(b"retry-after-ms"))) is not None:
        return ms / 1000
    text = found.get(b"retry-after")
    if (seconds := _number(text)) is not None:
        return seconds
    if not text:
        return None
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is in UTC, as HTTP has it.
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_s)


def _number(text: str | None) -> float | None:
    try:
        value = number_of(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
