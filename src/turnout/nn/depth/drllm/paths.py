"""This module edits paths through the blocks: take one or two entries out, or call one again."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.nn.depth.contract import MOST_CALLS

Path = tuple[int, ...]
"""The blocks in the order in which they are called, such as (0, 1, 1, 3)."""


def full_path(layers: int) -> Path:
    """Return the path that executes every block once."""
    return tuple(range(layers))


def edits(path: Path, *, layers: int, most_calls: int = MOST_CALLS) -> list[Path]:
    """Return the distinct paths that are one edit away, without the empty one, in a fixed order.

    An edit deletes one or two entries that follow each other, or duplicates one entry, up to `most_calls` of
    the same block and 2 `layers` entries in all.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3.1; `most_calls` keeps a path what its label says.
    """
    found: dict[Path, None] = {}
    for width in (1, 2):
        for start in range(len(path) - width + 1):
            found[path[:start] + path[start + width :]] = None
    if len(path) < 2 * layers:
        for place, layer in enumerate(path):
            if path.count(layer) < most_calls:
                found[path[: place + 1] + path[place:]] = None
    found.pop((), None)
    return list(found)


def counts_of(path: Sequence[int], layers: int) -> list[int]:
    """Return how often each of `layers` blocks occurs in a path, at most `MOST_CALLS`."""
    return [min(sum(1 for entry in path if entry == layer), MOST_CALLS) for layer in range(layers)]


def preferred(paths: Sequence[Path]) -> Path:
    """Return the shortest path; ties by fewest distinct blocks, then by order."""
    return min(paths, key=lambda path: (len(path), len(set(path)), path))
