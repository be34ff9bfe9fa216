"""This module writes the parts of docs/results.md on scores of other benchmarks, large tables, promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scripts.results_cells import Result, commits, saving, spread
from scripts.results_systems import Writers, written
from turnout.training.bench.told import is_told

ROWS = ("best single", "knn", "ridge", "group_mean", "blend", "auto", "random", "oracle")


def scores(data: Result) -> Iterator[str]:
    """S40, S55 and S59: quality per energy, rank score and board score, features that are handed over."""
    pieces = data["result"]["pieces"]
    if "energy" in pieces:
        yield from _energy(pieces["energy"])
    yield (
        "Rank score (S55, VL-RouterBench) and the score of RouterArena's board (S59) of what each "
        "serves for the "
        "best quality: harmonic means of quality and thrift, the first between the costs of the cheapest and "
        "the dearest candidate (who calls the dearest alone has 0), the second between the board's own."
    )
    yield ""
    yield f"| held-out | score | {' | '.join(map(_named, ROWS))} |"
    yield "|---|---" + "|---" * len(ROWS) + "|"
    for name, found in _part(pieces, "boards").items():
        for score in ("rank", "arena"):
            cells = " | ".join(
                f"{found['rows'][row][score]:.3f}" if row in found["rows"] else "-" for row in ROWS
            )
            yield f"| {name} | {score} | {cells} |"
    yield ""
    yield (
        "Features that are handed over (S55): quality of routers on text, and on the same vectors written as "
        "numbers into tags, with neither text nor task, which is how features of an image come in. No "
        "table at "
        "hand has images: that the contract loses nothing is measured, what a picture says is not."
    )
    yield ""
    told = _part(pieces, "handed")
    kinds = [kind for kind in next(iter(told.values())) if kind != "commit"]
    yield f"| held-out | {' | '.join(kinds)} |"
    yield "|---" * (len(kinds) + 1) + "|"
    for name, found in told.items():
        yield f"| {name} | {' | '.join(f'{found[kind]:.3f}' for kind in kinds)} |"


def _named(row: str) -> str:
    return f"{row} (told)" if is_told(row) else row


def _part(pieces: Result, kind: str) -> dict[str, Result]:
    return {name.partition("--")[2]: found for name, found in pieces.items() if name.startswith(kind)}


def _energy(found: Result) -> Iterator[str]:
    yield (
        f"Energy (S40): greenserv_bandit recorded the energy of {found['candidates']} models' answers, "
        f"normalised to "
        f"[0, 1], on {found['observed']:.0%} of the cells of these {found['queries']:,} held-out "
        f"queries; the others "
        "are estimated ([tables with holes](bench_routers.md#tables-with-holes)). Without times there are no "
        "watts: quality per energy stands in their place. Energy takes the place of money; the saving is of "
        "energy, at the best single model's quality, anywhere on the curve."
    )
    yield ""
    yield "| | quality | energy per query | quality per energy | saving of energy, % |"
    yield "|---|---|---|---|---|"
    for name in ROWS:
        row = found["rows"][name]
        yield (
            f"| {_named(name)} | {spread(row['quality'])} | {row['energy']:.3f} | {row['per_energy']:.2f} "
            f"| {saving(row['saving'])} |"
        )
    yield ""


def large(data: Result) -> Iterator[str]:
    """What `auto` needs on large tables."""
    yield (
        "`train` with its defaults, for the best quality, on tables of many sizes: what it costs, and "
        "whether what is deployed is below the best single model. Tables are procedural, on real texts. "
        "Minutes of the processor are of one thread. *True* quality is of 2,000 further queries, by the "
        "chances that the outcomes were drawn from, so that it has no noise. *Best single model*: the best "
        "one of the training part, and who is truly best on those queries. A table with holes lacks cells "
        "at random. Below the best single model: "
        f"{', '.join(_below(data['result']['tables'])) or 'nowhere'}. Commits of the rows: "
        f"{commits(data['result']['tables'].values())}."
    )
    yield ""
    yield (
        "| training x candidates | filled | processor, min | peak memory, GB | artifact, MB "
        "| true quality | best single model | the same, in hindsight | oracle |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, cell in data["result"]["tables"].items():
        if "error" in cell:
            yield f"| {name} | could not run: {cell['error']} | | | | | | | |"
            continue
        yield (
            f"| {cell['queries']:,} x {cell['candidates']} | {cell['observed']:.0%} | "
            f"{cell['fit_cpu_s'] / 60:.2f} "
            f"| {cell['peak_mb'] / 1024:.1f} | {cell['artifact_mb']:.0f} "
            f"| {cell['expected_quality']:.3f} | {_single(cell):.3f} "
            f"| {cell['best_single_quality']:.3f} | {cell['oracle_quality']:.3f} |"
        )


def _below(tables: Result) -> list[str]:
    """Return the tables on which what is deployed is truly worse than the best single model."""
    return [
        name
        for name, cell in tables.items()
        if "error" not in cell and cell["expected_quality"] < _single(cell) - 1e-12
    ]


def _single(cell: Result) -> float:
    return float(cell.get("single_quality", cell["best_single_quality"]))


def promise(data: Result) -> Iterator[str]:
    """Whether a promise that was missed on a reported split is kept elsewhere."""
    for name, found in data["result"]["sets"].items():
        reported = spread(found["reported"], scale=100, form="+.1f")
        mean = spread(found["mean"], scale=100, form="+.1f")
        yield (
            f"{name}: the deployment that promises the best single model's quality at the least cost lies "
            f"{reported} points from it on the {found['reported_queries']:,} reported queries, an interval "
            f"that holds 0. On {found['cuts']} cuts of the training part alone, 95/5 by other seeds, it lies "
            f"{mean} points from it over {found['queries']:,} queries (cut by cut "
            f"{100 * found['least']:+.1f} "
            f"to {100 * found['largest']:+.1f}), and {100 * found['mean_of_reported_mix']:+.1f} in the "
            f"mix of "
            f"tasks that is reported, at {found['spend']:.0%} of its cost; the guard opened on "
            f"{found['open']} of them. {found['below']} cuts lie below the best single model, "
            f"{found['significantly_below']} by their own interval. Nothing was learned or chosen from the "
            "reported split."
        )
        yield ""


def holes(data: Result) -> Iterator[str]:
    """How far the judgement of a half-empty table is from that of the full one."""
    yield (
        "Half of the outcomes of full tables are taken away, at random or so that the better "
        "candidates ran on "
        "hard tasks and the others on easy ones; then `turnout bench routers` judges five routers on what is "
        "left ([tables with holes](bench_routers.md#tables-with-holes)). Errors in points of quality against "
        "the full table, mean and largest; *observed*: the mean over choices that happen to have been "
        "recorded; *covered*: 95 % intervals that hold the truth; *oracle*: what its estimate adds."
    )
    yield ""
    yield "| table, holes | judgements | error | observed: error | covered | oracle |"
    yield "|---|---|---|---|---|---|"
    for name, cell in data["result"]["tables"].items():
        ours = f"{100 * cell['error']:.1f}, {100 * cell['largest']:.1f}"
        naive = f"{100 * cell['observed_error']:.1f}, {100 * cell['observed_largest']:.1f}"
        yield (
            f"| {name} | {cell['judgements']} | {ours} | {naive} | {cell['covered']:.0%} "
            f"| {100 * cell['oracle_bias']:+.1f} |"
        )


SECTIONS: Writers = {
    "holes": ("Judging tables with holes", holes),
    "scores": ("Scores of other benchmarks: energy (S40), rank (S55), board (S59)", scores),
    "large": ("auto on large tables", large),
    "promise": ("Promises on other cuts", promise),
}


def sections(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every result that is there."""
    yield from written(SECTIONS, read, exists)
