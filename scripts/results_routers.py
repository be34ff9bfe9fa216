"""This module writes the parts of docs/results.md about the routers of requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations

from scripts.results_cells import Result, spread
from scripts.results_systems import Writers, written
from turnout.routers import registry
from turnout.training.bench.contestants import METHODS
from turnout.training.bench.summary import completed, to_markdown
from turnout.training.bench.told import is_told, plain, said, told


def auto(data: Result) -> Iterator[str]:
    """The default against its rivals, on every trainable set with text."""
    result = data["result"]
    yield (
        f"What `train` deploys for the best quality when nobody names a router, next to rivals that learned "
        f"from the same training part. *Given*: requests name their task. Points of quality beyond a rival, "
        f"with intervals of one family: {result['comparisons']} paired bootstrap intervals of confidence "
        f"{result['confidence']:.2%} each (Bonferroni), so that all hold together with 95 %. Nothing was "
        "chosen by looking at these held-out parts."
    )
    yield ""
    yield _auto_in_words(result["sets"])
    yield ""
    yield "| held-out | best single | kNN | ridge | group mean (given) | auto | auto (given) | oracle |"
    yield "|---|---|---|---|---|---|---|---|"
    names = ("best_single", "knn", "ridge", "group_mean", "auto", "auto_given", "oracle")
    for name, found in result["sets"].items():
        cells = " | ".join(f"{found['quality'][other]['value']:.3f}" for other in names)
        yield f"| {name} | {cells} |"
    yield ""
    heads = ("beyond best single", "beyond kNN", "given: beyond group mean", "diverted", "oracle gap, %")
    yield f"| held-out | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|"
    for name, found in result["sets"].items():
        beyond = [
            spread(found["against"][rival], scale=100, form="+.1f")
            for rival in ("best_single", "knn", "group_mean")
        ]
        share = spread(found["oracle_share_auto"], scale=100, form=".0f")
        yield f"| {name} | {' | '.join(beyond)} | {found['diverted']:.0%} | {share} |"
    yield ""
    yield from _equal_quality(result)
    yield "Seconds and milliseconds of the processor, one thread, and the members of the blend:"
    yield ""
    yield "| held-out | training x candidates | fit, s | decision p50, ms | artifact, MB | members |"
    yield "|---|---|---|---|---|---|"
    for name, found in result["sets"].items():
        members = ", ".join(f"`{member}`" for member in found["about"]["members"])
        yield (
            f"| {name} | {found['train']:,} x {found['candidates']} | {found['fit_s']:.0f} "
            f"| {found['p50_ms']:.2f} | {found['artifact_mb']:.0f} | {members} |"
        )


def _auto_in_words(sets: Result) -> str:
    """Return where `auto` is above and below its rivals by whole intervals, and where it steps aside."""
    below = [
        f"{name} ({rival.replace('_', ' ')})"
        for name, found in sets.items()
        for rival, value in found["against"].items()
        if value["high"] < 0.0
    ]
    above = [name for name, found in sets.items() if found["against"]["best_single"]["low"] > 0.0]
    aside = [name for name, found in sets.items() if found["diverted"] == 0.0]
    return (
        f"Below a rival by the whole interval: {', '.join(below) or 'nowhere'}. Above the best single model "
        f"by the whole interval: {', '.join(above) or 'nowhere'}. *Diverted*: the share of requests that do "
        "not go to the best single model. It is 0 where the guard steps aside "
        f"({', '.join(aside) or 'nowhere'}): there nothing of the oracle's gap is recovered, and nothing is "
        "lost."
    )


_PRICED = {
    "router": "auto",
    "knn": "kNN",
    "ridge": "ridge",
    "router_given": "auto (given)",
    "group mean": "group mean (given)",
}
"""Row of a report -> its name in the table of savings."""
_JUDGED = {"router": ("knn", "ridge"), "router_given": ("knn", "ridge", "group mean")}
"""`auto` -> the rows that know no more than it."""


def _equal_quality(result: Result) -> Iterator[str]:
    """Yield the saving at the best single model's quality, on the sets with prices."""
    yield (
        "Saving at the best single model's quality, in percent of its cost, anywhere on the curve (95 % "
        "each); *never*: no point of the curve, or of a resample's, reaches that quality. The last two "
        "columns say whether `auto` saves most among those that know no more than it, or lies within the "
        "interval of who does."
    )
    yield ""
    yield f"| held-out | {' | '.join(_PRICED.values())} | auto | auto (given) |"
    yield "|---" * (len(_PRICED) + 3) + "|"
    for name, found in result["sets"].items():
        rows = found["equal_quality"]
        if rows:
            cells = [saving(rows.get(other)) for other in _PRICED]
            yield f"| {name} | {' | '.join([*cells, *_lowest(rows)])} |"
    yield ""


def _lowest(rows: Result) -> Iterator[str]:
    """Yield for each `auto` whether nobody saves more, or who does and whether its interval holds `auto`."""
    for mine, rivals in _JUDGED.items():
        shares = {who: rows[who]["saving"]["share"] for who in (mine, *rivals) if _has_saving(rows, who)}
        if mine not in shares:
            yield "-"
            continue
        first = max(shares, key=lambda who: _saved(shares[who]["value"]))
        own, most = _saved(shares[mine]["value"]), _saved(shares[first]["value"])
        if own >= most:
            yield "most" if most > float("-inf") else "nobody reaches it"
        else:
            yield ("within " if own >= _saved(shares[first]["low"]) else "less than ") + _PRICED[first]


def _has_saving(rows: Result, who: str) -> bool:
    return who in rows and rows[who]["saving"] is not None


def _saved(share: float | None) -> float:
    """Return a share saved, where never reaching that quality is less than any."""
    return float("-inf") if share is None else share


def saving(row: Result | None) -> str:
    """Return the saving of one row in percent, or `never`."""
    if row is None or row["saving"] is None:
        return "-"
    share = row["saving"]["share"]
    if share["value"] is None:
        return "never"
    low, high = ("never" if share[end] is None else f"{100 * share[end]:.0f}" for end in ("low", "high"))
    return f"{100 * share['value']:.0f} [{low}, {high}]"


def routers(data: Result) -> Iterator[str]:
    """Every method on the same tables."""
    yield (
        "Every method with its defaults, on the same splits and vectors, the best quality first; [what the "
        "columns mean](bench_routers.md#what-is-measured). Intervals are of 95 % each, one method and one "
        "set at a time, so that with so many rows the first of a table is partly luck: the family-wise "
        "judgement of the default is that of [auto](#auto-the-default). Times are of the processor, one "
        "thread."
    )
    if note := data["result"].get("note"):
        yield ""
        # What has not run stands in the tables, as rows.
        yield f"Note: {note.partition('. Not run so far')[0].rstrip('.')}."
    yield ""
    cells = said(data["result"]["cells"])
    yield (
        "*(told)*: knows the task of every held-out query; all other rows have its text alone, and are to be "
        "compared among themselves."
    )
    yield ""
    yield from _overview(cells)
    if pairs := _twins(cells):
        yield ""
        yield (
            f"Of equal quality on every set where both ran, so that two rows are one measurement: {pairs}; "
            "[why](papers.md#rows-that-are-no-measurement-of-their-own)."
        )
    yield from to_markdown(completed(cells, METHODS, data["result"].get("not_run")))


def _overview(cells: Sequence[Result]) -> Iterator[str]:
    """Yield one line per set: the default beside the best of all in hindsight."""
    yield (
        "Set by set, `auto` beside who turned out best on the held-out part, which nobody could have "
        "known, and the best of those that are told the tasks. *Better*: methods above, and below, the best "
        "single model by their whole interval. *Cost*: at the best single model's quality, as a share of "
        "its cost."
    )
    yield ""
    heads = (
        *("best single", "auto", "best in hindsight", "best of the told"),
        *("better, worse", "cost: auto", "lowest in hindsight"),
    )
    yield f"| held-out | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name in dict.fromkeys(cell["set"] for cell in cells):
        ran = {cell["method"]: cell for cell in cells if cell["set"] == name and "error" not in cell}
        knows = {method for method, cell in ran.items() if cell["told"]}
        first, wise = (_best(ran, names) for names in (ran.keys() - knows, knows))
        gaps = [cell["against_best_single"] for cell in ran.values()]
        better, worse = sum(gap["low"] > 0.0 for gap in gaps), sum(gap["high"] < 0.0 for gap in gaps)
        reached = {
            method: cell["cost_at_best_single"]
            for method, cell in ran.items()
            if method not in knows
            and cell["cost_at_best_single"]
            and cell["cost_at_best_single"]["value"] is not None
        }
        least = min(reached, key=lambda method: reached[method]["value"], default=None)
        single, mine = (ran[who]["quality"]["value"] for who in ("best_single", "auto"))
        lowest = "-" if least is None else f"{_cost(reached[least])} `{least}`"
        yield (
            f"| {name} | {single:.3f} | {mine:.3f} | {first} | {wise} | {better}, {worse} of {len(ran)} "
            f"| {_cost(ran['auto']['cost_at_best_single'])} | {lowest} |"
        )


def _best(ran: Result, names: Collection[str]) -> str:
    """Return the highest quality among some methods, and whose it is."""
    if not names:
        return "-"
    first = max(sorted(names), key=lambda method: ran[method]["quality"]["value"])
    return f"{ran[first]['quality']['value']:.3f} {_named(first)}"


def _twins(cells: Sequence[Result]) -> str:
    """Return which methods chose equally well on each of several sets, to the last digit of the intervals."""
    rows: dict[str, dict[str, Result]] = {}
    for cell in cells:
        if "error" not in cell:
            rows.setdefault(cell["method"], {})[cell["set"]] = cell["quality"]
    found = []
    for one, other in combinations(sorted(rows), 2):
        shared = rows[one].keys() & rows[other].keys()
        if len(shared) > 1 and all(rows[one][name] == rows[other][name] for name in shared):
            found.append(f"{_named(one)} and {_named(other)} ({len(shared)} sets)")
    return ", ".join(found)


def _named(method: str) -> str:
    return f"`{plain(method)}`" + (" (told)" if is_told(method) else "")


def _cost(found: Result | None) -> str:
    """Return a cost in percent with its interval."""
    if found is None:
        return "-"
    if found["value"] is None:
        return "never"
    low, high = ("never" if found[end] is None else f"{100 * found[end]:.0f}" for end in ("low", "high"))
    return f"{100 * found['value']:.0f} % [{low}, {high}]"


def commits_of(cells: Sequence[Result]) -> str:
    """Return the commits that cells were measured at, each with its sets: a table may hold several runs."""
    sets: dict[str, list[str]] = {}
    for cell in cells:
        names = sets.setdefault(cell["commit"], [])
        if cell["set"] not in names:
            names.append(cell["set"])
    if len(sets) == 1:
        return f"commit {next(iter(sets))}"
    found = [f"{commit} ({', '.join(names)})" for commit, names in sets.items()]
    return f"measured at the commits {', '.join(found[:-1])} and {found[-1]}"


def measured(cells: Sequence[Result]) -> Iterator[str]:
    """Yield one row per router of the registry: points beyond the best single model, set by set."""
    cells = said(cells)
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    found = {(cell["method"], cell["set"]): cell for cell in cells if "error" not in cell}
    yield f"| class | {' | '.join(sets)} |"
    yield "|---" * (len(sets) + 1) + "|"
    for name in [method for one in registry for method in (one, told(one))]:
        row = [found.get((name, part)) for part in sets]
        if any(row):
            gains = [
                "-" if cell is None else spread(cell["against_best_single"], scale=100, form="+.1f")
                for cell in row
            ]
            mark = " (told)" if is_told(name) else ""
            yield f"| `{registry.path(plain(name)).partition(':')[2]}`{mark} | {' | '.join(gains)} |"


SECTIONS: Writers = {
    "auto": ("auto, the default", auto),
    "routers": ("Every method on the same tables", routers),
}


def sections(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every result that is there."""
    yield from written(SECTIONS, read, exists)
