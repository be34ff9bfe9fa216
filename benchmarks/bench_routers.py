"""This module records `turnout bench routers`: every method on the same tables, splits, seeds and embeddings.

    TURNOUT_DATA=<data> python -m benchmarks.bench_routers [--folder DIR] [--jobs N]

Cells that stand in the folder are not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.bench_reports import prepare as without_hidden_costs
from turnout.training.bench.contestants import METHODS
from turnout.training.bench.fight import fight
from turnout.training.bench.prepared import prepare
from turnout.training.bench.summary import to_text

NAMES = ("llmrouter", "lookahead", "zeroeval")
SEED = 0


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write points of quality beyond the best single model, one panel a set, as PNG; return its path.

    `uniform` is left out: it lies so far below that nothing else could be told apart.
    """
    cells = [cell for cell in cells if cell["method"] != "uniform"]
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    methods = list(dict.fromkeys(cell["method"] for cell in cells if "error" not in cell))
    figure = Figure(figsize=(2.6 * len(sets) + 1.5, 0.8 + 0.24 * len(methods)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        for cell in cells:
            if cell["set"] != name or "error" in cell:
                continue
            row, found = methods.index(cell["method"]), cell["against_best_single"]
            color = "#2563eb" if cell["method"] == "auto" else "#6b7280"
            axes.plot([100 * found["low"], 100 * found["high"]], [row, row], color=color, linewidth=2.0)
            axes.plot(100 * found["value"], row, "o", color=color, markersize=3.5)
        axes.axvline(0.0, color="#9ca3af", linewidth=0.9)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("points beyond best single", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    figure.savefig(path, format="png", metadata={"Software": "turnout"})
    return path


def main() -> None:
    """Run what is missing, then write routers.json and routers.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where cells are kept (default: a new one)")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    places = [
        prepare(name, without_hidden_costs(table), folder / "sets", seed=SEED)
        for name, table in record.tables(*NAMES)
    ]

    def show(phrase: str, done: int, total: int) -> None:
        print(f"{done}/{total} {phrase}", flush=True)

    cells = fight(places, METHODS, folder / "cells", seed=SEED, jobs=options.jobs, progress=show)
    print(record.write("routers", {"cells": cells}, seed=SEED).name)
    draw(cells, record.RESULTS / "routers.png")
    print(to_text(cells))


if __name__ == "__main__":
    main()
