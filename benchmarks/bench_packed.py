"""What packed weights are worth where a model only answers: `packed` against `auto`, forward, turn by turn.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_packed [--cell-s 2] [--tokens 4096 ...]

Writes benchmarks/results/packed.json, and what came of the predictions into benchmarks/nn/NOTES.md. Settings,
floor and clock are those of `benchmarks.bench_moe`: processor seconds of one thread, cold caches, medians of
the ratios of a round with the interval of their median. Packing is no part of a turn; how many passes it
takes stands in the record.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import packed_table, record
from benchmarks.bench_moe import (
    FLOOR_ROWS,
    MAX_ROUNDS,
    SIZES,
    WIDTH,
    Cell,
    _interval,
    cases,
    choices,
    experts_of,
    floors,
)
from turnout.nn.executors.auto import make_executor
from turnout.nn.plan import SparsePlan

LEAST_ROUNDS = 5


class PackedCell(Cell):
    """One setting; both executors make their plan too."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.is_backward = case, False
        dtype = getattr(torch, case["dtype"])
        self.experts = experts_of(case["experts"], dtype)
        x_TD = torch.randn(case["tokens"], WIDTH).to(dtype)
        weights_TK, indices_TK = choices(case["tokens"], case["experts"], case["k"], skewed=case["skewed"])
        weights_TK = weights_TK.to(dtype)

        def runs(name: str) -> Callable[[], Tensor]:
            executor = make_executor(name)

            def run() -> Tensor:
                plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=case["experts"])
                return executor.run(x_TD, plan, self.experts)

            return run

        self.floors = floors(min(indices_TK.numel(), FLOOR_ROWS), dtype, backward=False)
        self.scale = dict.fromkeys(self.floors, max(indices_TK.numel() / FLOOR_ROWS, 1.0))
        self.everybody = {"auto": runs("auto"), "packed": runs("packed")} | self.floors
        self.outputs: dict[str, Tensor] = {}
        self.cache = torch.ones(2**25)

    def measure(self, budget_s: float, rng: np.random.Generator) -> dict[str, Any]:
        """Return the ratios of as many rounds as `budget_s` allows."""
        first = {name: self.turn(name) for name in self.everybody}
        began, rounds = time.monotonic(), []
        while len(rounds) < MAX_ROUNDS and (
            len(rounds) < LEAST_ROUNDS or time.monotonic() - began < budget_s
        ):
            names = list(self.everybody)
            rounds.append({names[i]: self.turn(names[i]) for i in rng.permutation(len(names))})

        def over(one: str, other: str) -> dict[str, float]:
            return _interval([turns[one] / turns[other] for turns in rounds], rng)

        usual = float(np.median([turns["packed"] for turns in rounds]))
        return {
            **{name: value for name, value in self.case.items() if name != "backward"},
            "rounds": len(rounds),
            "is_same": torch.equal(self.outputs["auto"], self.outputs["packed"]),
            "packed_over_auto": over("packed", "auto"),
            "packed_over_floor": over("packed", "floor"),
            "auto_over_floor": over("auto", "floor"),
            "packed_over_fast_floor": over("packed", "fast_floor"),
            "packing_in_passes": (first["packed"] - usual) / usual,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell-s", type=float, default=2.0, help="seconds for the rounds of one setting")
    for name, values in SIZES.items():
        parser.add_argument(f"--{name}", nargs="*", type=type(values[0]), choices=values)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for case in cases(options):
        if not case["backward"]:
            rows.append(PackedCell(case).measure(options.cell_s, np.random.default_rng(0)))
            row = rows[-1]
            told = [f"{row[name]['value']:.2f}" for name in ("packed_over_auto", "packed_over_floor")]
            print(*case.values(), "over auto", told[0], "over the floor", told[1], flush=True)
    record.write("packed", {"rows": rows, "fingerprint": "random numbers of seed 0"}, seed=0)
    packed_table.main()


if __name__ == "__main__":
    main()
