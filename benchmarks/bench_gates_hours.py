"""How long would a large setting of `turnout bench gates` take? Each gate trains a few steps of it.

    TURNOUT_DATA=<data> OMP_NUM_THREADS=1 python -m benchmarks.bench_gates_hours --folder DIR [--setting full]

Writes benchmarks/results/hours_of_gates.json. A cell of the setting costs its steps times the processor
seconds of a step, and what judging costs once; both are measured on one thread for every gate, `STEPS` steps
of one seed, the first five not timed. Hours are those sums for all seeds, over the number of cores. A gate
whose steps become dearer in training (`smoe_dropout`, `stable`, `rex`) is taken at its beginning. Gates that
stand in the folder are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from turnout.nn.bench.cells import WARM_STEPS, run_cell
from turnout.nn.bench.corpus import Corpus, load_corpus
from turnout.nn.bench.setting import SETTINGS, Setting

STEPS = 12
"""Steps of each gate."""


def measured(setting: Setting, name: str, corpus: Corpus) -> dict[str, Any]:
    """Return the processor seconds of a step and of judging, and those of a whole cell."""
    start = time.process_time()
    found = run_cell(replace(setting, steps=STEPS), name, 0, corpus)
    all_s = time.process_time() - start
    tokens = setting.batch * setting.size.positions
    step_s = tokens / found["tokens_per_cpu_s"]
    once_s = max(all_s - STEPS * step_s, 0.0)
    cell_s = setting.steps * step_s + once_s
    return {"gate": name, "step_s": step_s, "once_s": once_s, "cell_hours": cell_s / 3600}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="full")
    parser.add_argument("--folder", type=Path, required=True, help="where each gate has its file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting, data = SETTINGS[options.setting], os.environ.get("TURNOUT_DATA")
    corpus = load_corpus(Path(data) / "corpora" / "text" if data else None)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in setting.contenders:
        path = options.folder / f"{setting.name}-{name}.json"
        if not path.exists():
            row = measured(setting, name, corpus)
            path.write_text(json.dumps(row), encoding="utf-8")
            print(f"{name}: {row['step_s']:.2f} s a step, {row['cell_hours']:.2f} hours a cell", flush=True)
    rows = [
        json.loads((options.folder / f"{setting.name}-{name}.json").read_text(encoding="utf-8"))
        for name in setting.contenders
    ]
    core_hours = setting.seeds * sum(row["cell_hours"] for row in rows)
    result = {
        "setting": setting.name,
        "steps": setting.steps,
        "seeds": setting.seeds,
        "measured_steps": STEPS - WARM_STEPS,
        "measured_share": (STEPS - WARM_STEPS) / setting.steps / setting.seeds,
        "cells": setting.seeds * len(rows),
        "core_hours": core_hours,
        "hours_on_2_cores": core_hours / 2,
        "rows": rows,
        "fingerprint": corpus.fingerprint,
    }
    print(record.write("hours_of_gates", result, seed=0).name, f"{core_hours:.0f} core hours")


if __name__ == "__main__":
    main()
