"""This module records `turnout bench routers`: every method on the same tables, splits, seeds and embeddings.

    TURNOUT_DATA=<data> python -m benchmarks.bench_routers --folder DIR [--sets A,B] [--methods A,B] [--write]

Cells that stand in the folder are not run again. `--write` runs nothing: it writes routers.json and the
pictures from the cells that are there, each with the commit that it was measured at.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.bench_reports import prepare as without_hidden_costs
from benchmarks.routers_picture import draw, draw_money
from turnout.training.bench.contestants import METHODS
from turnout.training.bench.fight import fight
from turnout.training.bench.prepared import prepare
from turnout.training.bench.summary import completed, to_text
from turnout.training.bench.told import said

NAMES = ("llmrouter", "lookahead", "zeroeval", "alpacaeval1", "alpacaeval2", "routerdc7", "routellm_pair")
SEED = 0
LIMIT_S = 600
"""Seconds of the processor that one method may take on one set, with all that is measured of it."""


def show(phrase: str, done: int, total: int) -> None:
    """Print one line a cell."""
    print(f"{done}/{total} {phrase}", flush=True)


def main() -> None:
    """Run what is missing, or write routers.json and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where cells are kept (default: a new one)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sets", help="some of the sets (default: all)")
    parser.add_argument("--methods", help="some of the methods (default: all)")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    if options.write:
        write(folder / "cells")
        return
    wanted = options.sets.split(",") if options.sets else [*record.SHIPPED, *NAMES]
    places = [
        prepare(name, without_hidden_costs(table), folder / "sets", seed=SEED)
        for name, table in record.tables(*NAMES, only=wanted)
    ]
    methods = options.methods.split(",") if options.methods else METHODS
    about = {"commit": record.commit()}
    cells = fight(
        places,
        methods,
        folder / "cells",
        seed=SEED,
        jobs=options.jobs,
        limit_s=LIMIT_S,
        about=about,
        progress=show,
    )
    print(to_text(cells))


def write(folder: Path) -> None:
    """Write routers.json, routers.png and routers_money.png from the cells of a folder."""
    cells: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    cells = [cell for cell in said(cells) if cell["method"] in METHODS]
    print(record.write("routers", {"cells": cells, "note": note(cells)}, seed=SEED).name)
    print(draw(cells, record.RESULTS / "routers.png").name)
    print(draw_money(cells, record.RESULTS / "routers_money.png").name)


def note(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return at which commits cells were measured, and what has not run."""
    commits = Counter(cell["commit"] for cell in cells)
    counts = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common())
    absent = len(completed(cells, METHODS)) - len(cells)
    text = f"{len(cells)} cells, measured at the commits {counts}"
    failed = [f"{cell['method']} on {cell['set']}" for cell in cells if "error" in cell]
    if failed:
        text += f"; could not run, their rows say why: {', '.join(failed)}"
    if untimed := sum("error" not in cell and cell["fit_s"] is None for cell in cells):
        text += f"; {untimed} have no times, since theirs were of the clock while other work ran"
    coarse = [cell for cell in cells if "error" not in cell and cell["fit_s"] is not None]
    if rough := sum(cell["p50_ms"] is None for cell in coarse):
        text += f"; {rough} have no times of decisions, since their clock stood still between ticks of 4 ms"
    return f"{text}. " + (
        f"{absent} are not run, their rows say why" if absent else "Every method stands in every table"
    )


if __name__ == "__main__":
    main()
