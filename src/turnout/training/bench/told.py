"""This module says which methods are told the task of a held-out query; every other gets its text alone.

Who believes a task that is named, and infers it otherwise, takes part twice, so that what is compared knows
the same: `blend` beside `auto`, and `blend_told` beside `group_mean`, which can do nothing but read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnout.core.query import Query

ALWAYS = "group_mean"
"""Reads the task and never guesses it: without one it is the best single model."""
READERS = ("inferred_group", "blend", "graph")
"""Registered routers that believe a task that is named; the default's own is `auto_told`."""
_SUFFIX = "_told"


def told(name: str) -> str:
    """Return the name under which a method is told the tasks."""
    return name + _SUFFIX


def is_told(name: str) -> bool:
    """Return whether the method of this name is told the tasks."""
    return name == ALWAYS or name.endswith(_SUFFIX)


def plain(name: str) -> str:
    """Return the name of a method without what says that it is told the tasks."""
    return name.removesuffix(_SUFFIX)


def asked(queries: Sequence[Query], name: str) -> list[Query]:
    """Return the queries as the method of this name gets them to decide: those that are not told, no task."""
    return list(queries) if is_told(name) else [replace(query, task=None) for query in queries]


def said(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return cells that each say whether the method was told the tasks (`told`).

    Older ones do not: there all methods were, and those that read tasks get the name that says so.
    """
    found = []
    for cell in cells:
        mine = dict(cell)
        if "told" not in mine:
            if mine["method"] in READERS:
                mine["method"] = told(mine["method"])
            mine["told"] = is_told(mine["method"])
        found.append(mine)
    return found
