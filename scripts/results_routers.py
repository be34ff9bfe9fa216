"""This module writes the parts of docs/results.md about the routers of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from scripts.results_cells import Result, spread
from scripts.results_systems import Writers, written
from turnout.routers import registry
from turnout.training.bench.summary import to_markdown


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
    yield "| held-out | training x candidates | fit, s | decision p50, ms | artifact, MB | members |"
    yield "|---|---|---|---|---|---|"
    for name, found in result["sets"].items():
        members = ", ".join(f"`{member}`" for member in found["about"]["members"])
        yield (
            f"| {name} | {found['train']:,} x {found['candidates']} | {found['fit_s']:.0f} "
            f"| {found['p50_ms']:.2f} | {found['artifact_mb']:.0f} | {members} |"
        )


def _equal_quality(result: Result) -> Iterator[str]:
    """Yield the saving at the best single model's quality, on the sets with prices."""
    yield (
        "Saving at the best single model's quality, in percent of its cost, anywhere on the curve (95 % "
        "each); *never*: no point of the curve, or of a resample's, reaches that quality."
    )
    yield ""
    yield "| held-out | auto | kNN | ridge | group mean (given) |"
    yield "|---|---|---|---|---|"
    for name, found in result["sets"].items():
        rows = found["equal_quality"]
        if rows:
            cells = [saving(rows.get(other)) for other in ("router", "knn", "ridge", "group mean")]
            yield f"| {name} | {' | '.join(cells)} |"
    yield ""


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
        "Every method with its defaults, on the same splits and vectors; [what the columns mean]"
        "(bench_routers.md#what-is-measured). Times were taken while other work ran beside it; compare them "
        "within a table."
    )
    if note := data["result"].get("note"):
        yield ""
        yield f"Note: {note}."
    yield from to_markdown(data["result"]["cells"])


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
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    found = {(cell["method"], cell["set"]): cell for cell in cells if "error" not in cell}
    yield f"| class | {' | '.join(sets)} |"
    yield "|---" * (len(sets) + 1) + "|"
    for name in registry:
        row = [found.get((name, part)) for part in sets]
        if any(row):
            gains = [
                "-" if cell is None else spread(cell["against_best_single"], scale=100, form="+.1f")
                for cell in row
            ]
            yield f"| `{registry.path(name).partition(':')[2]}` | {' | '.join(gains)} |"


SECTIONS: Writers = {
    "auto": ("auto, the default", auto),
    "routers": ("Every method on the same tables", routers),
}


def sections(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every result that is there."""
    yield from written(SECTIONS, read, exists)
