"""This module holds the texts on which embedders are tried."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from turnout.core.query import Query
from turnout.datasets import load


def as_queries(texts: Iterable[str | None]) -> list[Query]:
    """Return one query per text."""
    return [Query(id=f"q{row}", text=text) for row, text in enumerate(texts)]


@cache
def real_queries(num: int = 400) -> tuple[Query, ...]:
    """Return questions of a bundled table."""
    return load("open9").queries[:num]


ODD_TEXTS: tuple[str | None, ...] = (
    None,
    "",
    " \n\t",
    "\ud800 alone \udfff",
    "\u4f60\u597d\u4e16\u754c\u548c\u5e73",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a",
    "\x00\x01",
    "a" * 100_000,
    "?" * 5_000,
)
