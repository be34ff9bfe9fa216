"""This module writes docs/results.md and parts of README and of the pages of routers, training and gates.

No number stands in the docs that is not read from a result; a test compares the pages with what this writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts import (
    results_gates,
    results_gateway,
    results_judged,
    results_routers,
    results_scores,
    results_systems,
    results_training,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
ROUTERS = ROOT / "docs" / "routers.md"
TRAINING = ROOT / "docs" / "training.md"
GATES = ROOT / "docs" / "bench_gates.md"
BEGIN, END = "<!-- results: written by scripts/results.py -->", "<!-- end of results -->"
SETS = ("reason18", "open9", "llmrouter", "routerdc7", "lookahead", "routellm_pair", "zeroeval")
HEAD = """# Results

<!-- Written by scripts/results.py from benchmarks/results: run `make docs`. -->

Each table names the file that it is read from, which holds the commit, the command, the seed and the machine.
Nothing was chosen by looking at a reported split, except where a section says so.
"""


def read(name: str) -> dict[str, Any]:
    """Return one result file."""
    data: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def interval(value: dict[str, Any] | None, *, scale: float = 1.0, form: str = ".3f") -> str:
    """Return `value [low, high]`, or a dash where there is none."""
    if value is None or value["value"] is None:
        return "-"
    ends = ", ".join(
        "never" if value[end] is None else format(scale * value[end], form) for end in ("low", "high")
    )
    return f"{format(scale * value['value'], form)} [{ends}]"


def saving(row: dict[str, Any]) -> str:
    """Return the saving at equal quality in percent, or `never`."""
    found = row["saving"]
    if found is None:
        return "-"
    return "never" if found["share"]["value"] is None else interval(found["share"], scale=100, form=".0f")


def report_rows(name: str) -> Iterator[str]:
    """Yield the lines of one report's table."""
    data = read(f"report_{name}")
    report = data["result"]["report"]
    origin = report["origin"]
    yield f"### {name}"
    yield ""
    yield (
        f"`report_{name}.json`, commit {data['commit']}: {origin['num_scored']:,} held-out queries, "
        f"best single model `{report['best_single']}`."
    )
    yield ""
    yield "| | quality | usd per 1,000 | saving at equal quality, % | points against best single |"
    yield "|---|---|---|---|---|"
    for row in report["rows"]:
        usd = interval(row["usd_per_1k"], form=".3g") if row["usd_per_1k"] else "-"
        points = interval(row["vs_best_single"], scale=100, form="+.1f")
        yield f"| {row['name']} | {interval(row['quality'])} | {usd} | {saving(row)} | {points} |"
    yield ""
    plan = data["result"]["certificate"]["plan"]
    yield f"Promised: {plan['text']}."
    yield ""


def speed_rows() -> Iterator[str]:
    """Yield the lines about decisions, fitting, curves and the import."""
    decide = read("decide")
    yield f"`decide.json`, commit {decide['commit']}: one thread, 80 tokens of text in, decision out."
    yield ""
    yield "| table | router | one decision p50, ms | p99, ms | batch of 256, decisions/s |"
    yield "|---|---|---|---|---|"
    for table, found in decide["result"].items():
        for router in ("ridge", "knn", "knn_exact"):
            timing = found.get(f"{router}/deployment") if isinstance(found, dict) else None
            if timing:
                single, batch = timing["single"], timing["batch_256"]
                yield (
                    f"| {table} | {router} | {single['p50_ms']:.2f} | {single['p99_ms']:.2f} "
                    f"| {batch['median_per_s']:,.0f} |"
                )
    yield ""
    fit = read("fit")
    yield f"`fit.json`, commit {fit['commit']}:"
    yield ""
    yield "| table and router | fit, s | peak memory, MB |"
    yield "|---|---|---|"
    for name, found in fit["result"].items():
        if isinstance(found, dict):
            yield f"| {name} | {found['fit_s']:.1f} | {found['peak_rss_mb']:,.0f} |"
    yield ""
    curve, imports = read("curve"), read("import")
    yield f"`curve.json`, commit {curve['commit']}: a full report with every baseline and interval."
    yield ""
    yield "| table | queries x candidates | prices | resamples | s |"
    yield "|---|---|---|---|---|"
    for name, found in curve["result"].items():
        if isinstance(found, dict) and "evaluate" in found:
            size = found.get("size", found)
            yield (
                f"| {name} | {size['queries']:,} x {size['candidates']} | {size['prices']} "
                f"| {size['resamples']:,} | {found['evaluate']['median_s']:.2f} |"
            )
    yield ""
    seconds = imports["result"]["import_turnout_s"]
    yield f"`import turnout` takes {seconds:.2f} s (`import.json`, commit {imports['commit']})."


def fold_rows() -> Iterator[str]:
    """Yield the table of five-fold quality at price 0."""
    data = read("folds")
    yield (
        f"`folds.json`, commit {data['commit']}: mean quality over five folds, price 0. The defaults of the "
        "text encoder, kNN and ridge were compared on these tables, so the figures are slightly too good."
    )
    yield ""
    routers = ("best_single", "group_mean", "knn", "ridge")
    yield f"| table | random | {' | '.join(routers)} | oracle |"
    yield "|---|---|" + "---|" * len(routers) + "---|"
    for table, found in data["result"].items():
        if not isinstance(found, dict) or "oracle" not in found:
            continue
        cells = " | ".join(f"{found[name]['quality']:.4f}" if name in found else "-" for name in routers)
        yield f"| {table} | {found['random']:.4f} | {cells} | {found['oracle']:.4f} |"


def leak_rows() -> Iterator[str]:
    """Yield the table of held-out texts that stand in training."""
    data = read("leakage")
    yield f"`leakage.json`, commit {data['commit']}: equal + nearly equal test queries, of all."
    yield ""
    yield "| table | its own train and test | random 70/30 | turnout's splitter |"
    yield "|---|---|---|---|"
    for name, found in data["result"].items():
        cells = [
            f"{found[kind]['exact']} + {found[kind]['near']} of {found[kind]['of']:,}"
            if kind in found
            else "-"
            for kind in ("own", "random", "turnout")
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def page() -> str:
    """Return docs/results.md."""
    parts = [HEAD, "## Quality and cost", ""]
    for name in SETS:
        if (RESULTS / f"report_{name}.json").exists():
            parts.extend(report_rows(name))
    parts += ["## Routers of requests", ""]
    parts += results_routers.sections(read, lambda name: (RESULTS / name).exists())
    parts += results_judged.sections(read, lambda name: (RESULTS / name).exists())
    parts += results_scores.sections(read, lambda name: (RESULTS / name).exists())
    parts += ["## Inside a model, and in sequence", ""]
    parts += results_systems.sections(read, lambda name: (RESULTS / name).exists())
    parts += ["## The gateway", ""]
    parts += results_gateway.sections(read, lambda name: (RESULTS / name).exists())
    parts += ["## Leakage", "", *leak_rows(), ""]
    parts += ["## Five folds", "", *fold_rows(), "", "## Speed", "", *speed_rows(), ""]
    return "\n".join(parts)


def front() -> str:
    """Return the README with the table between its marks written anew."""
    lines = [
        "",
        "| held-out | best single model | usd per 1,000 | turnout | usd per 1,000 |",
        "|---|---|---|---|---|",
    ]
    for name in SETS:
        path = RESULTS / f"report_{name}.json"
        if not path.exists():
            continue
        rows = {row["name"]: row for row in read(f"report_{name}")["result"]["report"]["rows"]}
        single, router = rows["best single"], rows["router"]
        cells = [
            cell
            for row in (single, router)
            for cell in (
                interval(row["quality"]),
                f"{row['usd_per_1k']['value']:.3g}" if row["usd_per_1k"] else "-",
            )
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return between_marks(README, lines)


def routers() -> str:
    """Return docs/routers.md with the measured numbers between its marks written anew."""
    data = read("routers")
    cells = data["result"]["cells"]
    lines = ["", f"`routers.json`, {results_routers.commits_of(cells)}.", ""]
    return between_marks(ROUTERS, [*lines, *results_routers.measured(cells)])


def training() -> str:
    """Return docs/training.md with what was measured of the default written anew."""
    lines = results_training.measured(read("auto"), read("auto_unseen"))
    return between_marks(TRAINING, ["", *lines])


def gates() -> str:
    """Return docs/bench_gates.md with what was measured of gates written anew."""
    lines = results_gates.measured(read, lambda name: (RESULTS / name).exists())
    return between_marks(GATES, ["", *lines])


def between_marks(path: Path, lines: Sequence[str]) -> str:
    """Return the text of a page with these lines between its marks."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n\n" + END + rest.split(END)[1]


def main() -> int:
    """Write the page, and the tables of the others."""
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(front(), encoding="utf-8")
    ROUTERS.write_text(routers(), encoding="utf-8")
    TRAINING.write_text(training(), encoding="utf-8")
    GATES.write_text(gates(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and the tables of README.md and {ROUTERS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
