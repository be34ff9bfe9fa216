"""This module writes what docs/training.md says of the default: where it gains, where it is below a rival."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.results_cells import Result, spread

_RIVALS = {
    "best_single": "the best single model",
    "knn": "kNN",
    "group_mean": "the group mean, with the tasks told",
}
_SMALLEST = 5e-4
"""Differences nearer to 0 than half of what is shown are no difference."""


def measured(auto: Result, unseen: Result) -> Iterator[str]:
    """Yield the lines of both comparisons."""
    yield from _known(auto)
    yield ""
    yield from _unseen(unseen)


def _known(data: Result) -> Iterator[str]:
    sets = data["result"]["sets"]
    gains = [
        f"{name} ({100 * found['against']['best_single']['value']:+.1f} points, "
        f"{found['oracle_share_auto']['value']:.0%} of the oracle gap)"
        for name, found in sets.items()
        if found["against"]["best_single"]["low"] > 0.0
    ]
    aside = [name for name, found in sets.items() if found["diverted"] == 0.0]
    yield (
        f"**{len(sets)} trainable sets with text** (`auto.json`; [the table](results.md#auto-the-default)), "
        "by intervals that hold all together. `auto` gains on the best single model on "
        f"{_listed(gains)}. It steps aside and diverts nothing on {_listed(aside)}, where the share of the "
        "gap that it recovers is zero."
    )
    yield ""
    for rival, words in _RIVALS.items():
        values = {name: found["against"][rival] for name, found in sets.items()}
        yield f"- Against {words}: {_below(values, 'value')}"


def _unseen(data: Result) -> Iterator[str]:
    result = data["result"]
    found, tables = result["summary"], result["regimes"]
    yield (
        f"**{len(tables)} tables that it has never seen** (`auto_unseen.json`; "
        "[the table](results.md#auto-on-tables-that-it-has-never-seen)), of kinds that no rule was chosen "
        "on; differences are the true ones, free of the noise of the held-out answers where the chances are "
        f"known. The guard lets the router serve on {found['open']}. Of {found['promises']['made']} promises "
        f"of equal quality, missed: {found['promises']['missed']}; the worst lies "
        f"{100 * found['promises']['worst']:+.1f} points from the best single model."
    )
    yield ""
    for rival, words in _RIVALS.items():
        values = {name: cell["against"][rival] for name, cell in tables.items() if rival in cell["against"]}
        mean = spread(found[rival]["mean"], scale=100, form="+.1f")
        yield f"- Against {words}: {mean} points on average; {_below(values, 'true')}"


def _below(values: dict[str, Result], key: str) -> str:
    """Return on which tables a difference lies below 0, and on which of them by its whole interval."""
    known = {name: value.get(key) for name, value in values.items()}
    below = {name: gap for name, gap in known.items() if gap is not None and gap <= -_SMALLEST}
    sure = [name for name, value in values.items() if value["high"] < 0.0]
    if not below:
        return f"nowhere below, of {len(values)}."
    named = _listed(
        [f"{name} ({100 * below[name]:+.1f})" for name in sorted(below, key=lambda one: below[one])]
    )
    return f"below on {len(below)} of {len(values)}: {named}; by the whole interval on {_listed(sure)}."


def _listed(names: list[str]) -> str:
    """Return names one after the other; those of tables may hold commas."""
    return "; ".join(names) or "none"
