"""This module bounds what a regular expression costs at worst, from its structure alone.

Python's engine backtracks: a pattern like `(a+)+b` takes exponential time on some text, holds the
interpreter's lock meanwhile, and no deadline can end it. So a pattern is judged before it is used. The bound
is the number of ways in which the engine can walk through the pattern, times the places at which it may
start: repeats in a row multiply their ways, a repeat of something that itself has several ways raises them
to a power, and atomic groups and possessive repeats, which never go back, have one way.
"""

from __future__ import annotations

import importlib
import math
import re
from typing import Any

# By name: whether type checkers know these modules depends on what else is installed.
codes: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

PATTERN_CHARS = 4_000
"""At most so many characters are searched by a pattern of the configuration, half from each end."""

MAX_STEPS = 2e7
"""Most steps on such a text, some 0.1 s: one unbounded repeat is within it, two are not."""

_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
_FORGETFUL = (codes.ATOMIC_GROUP, codes.POSSESSIVE_REPEAT)


def worst_steps(pattern: str, num_chars: int) -> float:
    """Return an upper bound on the steps of a search in a text of `num_chars` characters.

    Infinity where it is beyond floats. Raises `re.error` for what is no pattern.
    """
    parsed = parser.parse(pattern, re.NOFLAG)
    return _power(_log_ways(parsed, num_chars) + math.log(max(num_chars, 2)))


def _power(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf


def _log_ways(items: Any, num_chars: int) -> float:
    """Return the log of the number of ways through a sequence."""
    return math.fsum(_log_ways_of(code, value, num_chars) for code, value in items)


def _log_ways_of(code: Any, value: Any, num_chars: int) -> float:
    if code in _REPEATS:
        low, high, body = value
        most = min(int(high), num_chars)
        inner = _log_ways(body, num_chars)
        ends = math.log(max(most - int(low) + 1, 1))
        return ends + inner * most
    if code is codes.SUBPATTERN:
        return _log_ways(value[-1], num_chars)
    if code is codes.BRANCH:
        ways = [_log_ways(branch, num_chars) for branch in value[1]]
        if _begin_apart(value[1]):
            return max(ways)
        return math.log(sum(_power(way) for way in ways))
    if code is codes.GROUPREF_EXISTS:
        return sum(_log_ways(branch, num_chars) for branch in value[1:] if branch)
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        # A look-around is never re-entered, but it is walked again at every way that leads to it.
        return _log_ways(value[1], num_chars)
    if code is codes.GROUPREF:
        return math.log(max(num_chars, 2))
    if code in _FORGETFUL:
        # What is inside has one way once it is left; it must not be slow before that.
        inner = _log_ways(value if code is codes.ATOMIC_GROUP else value[2], num_chars)
        return 0.0 if inner <= math.log(max(num_chars, 2)) else inner * num_chars
    return 0.0  # one character, or a place


def _begin_apart(branches: list[Any]) -> bool:
    """Whether the alternatives begin with different characters, so that at most one can be entered."""
    firsts: set[str] = set()
    for branch in branches:
        if not len(branch) or branch[0][0] is not codes.LITERAL:
            return False
        firsts.add(chr(branch[0][1]).casefold())
    return len(firsts) == len(branches)
