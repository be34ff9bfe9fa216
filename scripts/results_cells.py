"""This module writes numbers with their intervals, for the pages of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def ends(value: Any, low: Any, high: Any, *, scale: float = 1.0, form: str = ".3f") -> str:
    """Return `value [low, high]`, or a dash where there is none."""
    if value is None or low is None or high is None:
        return "-" if value is None else format(scale * value, form)
    return f"{format(scale * value, form)} [{format(scale * low, form)}, {format(scale * high, form)}]"


def spread(found: Result | None, **settings: Any) -> str:
    """Return an interval that names its middle `mean` or `value`."""
    if found is None:
        return "-"
    middle = found["mean"] if "mean" in found else found["value"]
    return ends(middle, found["low"], found["high"], **settings)


def saving(share: Result | None) -> str:
    """Return a saving in percent with its interval, or `never`."""
    if share is None:
        return "-"
    if share["value"] is None:
        return "never"
    low, high = ("never" if share[end] is None else f"{100 * share[end]:.0f}" for end in ("low", "high"))
    return f"{100 * share['value']:.0f} [{low}, {high}]"


def faster(line: Result, clock: str) -> str:
    """Return how many times faster the median pair was, with the interval of that median."""
    return ends(line[f"speedup_{clock}"], *line[f"speedup_{clock}_interval"], form=".2f")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def commits(cells: Iterable[Result]) -> str:
    """Return the commits that cells were measured at, with how many at each."""
    counts = Counter(str(cell["commit"]) for cell in cells)
    return ", ".join(f"{commit} ({count})" for commit, count in counts.most_common())
