"""Executors against the experts backends of transformers: the same experts and choices, turn by turn.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_moe --folder DIR [--cell-s 2] [--tokens 4096 ...]
    OMP_NUM_THREADS=1 python -m benchmarks.bench_moe --folder DIR --write

The first measures every setting that the folder lacks, each into a file of its own, so that it goes on where
it was stopped: 16 minutes for all on an idle machine. The second makes benchmarks/results/moe.json and the
table in benchmarks/nn/NOTES.md of what is there.

Times are processor seconds of one thread. In every round each contestant has a turn, in a new order and
with cold caches, as between the layers of a model; recorded are medians of the ratios of a round, with the
interval of their median. A backend far behind the fastest one in the first round drops out.

Two floors hold the same operations as large products without any expert: by torch's own products (`floor`),
and in the fastest form of `turnout.nn.executors.forms` (`fast_floor`). `products` are the same operations
again, one expert after the other: as many rows as it has, its own weights, and nothing else, no gathering,
activation or adding up, into memory that was there before. What these take above the floor no order of work
on whole tokens removes. Predictions stand in benchmarks/nn/NOTES.md.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks import moe_table, record
from turnout.nn.executors import forms
from turnout.nn.executors.auto import make_executor
from turnout.nn.plan import SparsePlan

WIDTH = INNER = 1024
OURS, PRODUCTS = "turnout auto", "products"
THEIRS = ("eager", "grouped_mm", "batched_mm")
MAX_COPIED_ROWS = 32
"""`batched_mm` copies the weights of each pair; beyond so many pairs that is left out."""

MAX_WHOLE = 16
"""`eager` makes a gradient of the size of all experts for each of them: left out of backward with more."""

MAX_ROUNDS, MIN_ROUNDS = 41, 3
BEHIND, BEHIND_LONG = 3.0, 1.25
"""So many times as slow as the fastest backend in the first round, and a contestant drops out; the second
where a turn takes seconds."""

FLOOR_ROWS = 4096
"""A floor of more rows is measured on so many: a row more costs the same."""

CACHE_NUMBERS = 2**25
"""So many numbers, 128 MB, are read between two turns."""

SIZES = {"experts": (16, 64), "k": (2, 8), "tokens": (1, 16, 256, 4096), "dtype": ("float32", "bfloat16")}
Run = Callable[[], Tensor]


@functools.lru_cache(maxsize=1)
def experts_of(num_experts: int, dtype: torch.dtype) -> OlmoeExperts:
    config = OlmoeConfig(hidden_size=WIDTH, intermediate_size=INNER, num_experts=num_experts)
    config._experts_implementation = "eager"
    experts = OlmoeExperts(config).to(dtype)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.02)
    return experts


def choices(tokens: int, num_experts: int, k: int, *, skewed: bool) -> tuple[Tensor, Tensor]:
    """Return (weights_TK, indices_TK); skewed: expert e is liked 1 / (e + 1) as much."""
    random = torch.Generator().manual_seed(0)
    liked_E = 1 / torch.arange(1, num_experts + 1) if skewed else torch.ones(num_experts)
    indices_TK = torch.multinomial(liked_E.expand(tokens, -1), k, generator=random)
    return torch.rand(tokens, k, generator=random).softmax(dim=-1), indices_TK


def runners(experts: OlmoeExperts, x_TD: Tensor, weights_TK: Tensor, indices_TK: Tensor) -> dict[str, Run]:
    """Return what computes the layer, by name. Making a plan is part of our time."""
    executor = make_executor("auto")

    def ours() -> Tensor:
        plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=experts.num_experts)
        return executor.run(x_TD, plan, experts)

    def theirs(name: str) -> Run:
        def run() -> Tensor:
            experts.config._experts_implementation = name
            out: Tensor = experts(x_TD, indices_TK, weights_TK)
            return out

        return run

    is_backward, is_short = x_TD.requires_grad, indices_TK.numel() <= MAX_COPIED_ROWS
    left_out = {"batched_mm": not is_short, "eager": is_backward and experts.num_experts > MAX_WHOLE}
    names = [name for name in THEIRS if not left_out.get(name)]
    return {OURS: ours} | {name: theirs(name) for name in names}


def floors(rows: int, dtype: torch.dtype, *, backward: bool) -> dict[str, Run]:
    """Return the same operations as two products forward, and four more backward."""
    x_ND, inner_NI = torch.randn(rows, WIDTH).to(dtype), torch.randn(rows, INNER).to(dtype)
    dh_NF = torch.randn(rows, 2 * INNER).to(dtype)
    up_FD, down_DI = torch.randn(2 * INNER, WIDTH).to(dtype), torch.randn(WIDTH, INNER).to(dtype)

    def own() -> Tensor:
        y_ND = functional.linear(inner_NI, down_DI)
        functional.linear(x_ND, up_FD)
        if backward:
            for left, right in ((y_ND, down_DI), (dh_NF, up_FD), (y_ND.T, inner_NI), (dh_NF.T, x_ND)):
                left @ right
        return y_ND

    def fast() -> Tensor:
        y_ND = forms.outputs(inner_NI, down_DI)
        forms.outputs(x_ND, up_FD)
        if backward:
            forms.inputs(y_ND, down_DI), forms.inputs(dh_NF, up_FD)
            forms.weights(y_ND, inner_NI), forms.weights(dh_NF, x_ND)
        return y_ND

    return {"floor": own, "fast_floor": fast}


def products(experts: OlmoeExperts, indices_TK: Tensor, *, backward: bool) -> Run:
    """Return the floor's products expert by expert, each of as many rows as the choices give it."""
    up_EFD, down_EDI = experts.gate_up_proj.detach(), experts.down_proj.detach()
    counts = torch.bincount(indices_TK.flatten(), minlength=experts.num_experts).tolist()
    kind = up_EFD.dtype
    x, dy, y, dx = (torch.randn(max(counts), WIDTH).to(kind) for _ in range(4))
    inner, dinner = (torch.randn(max(counts), INNER).to(kind) for _ in range(2))
    h, dh = (torch.randn(max(counts), 2 * INNER).to(kind) for _ in range(2))
    grads = (torch.zeros_like(up_EFD), torch.zeros_like(down_EDI)) if backward else None

    def run() -> Tensor:
        for expert, n in enumerate(counts):
            if n:
                forms.outputs_into(h[:n], x[:n], up_EFD[expert])
                forms.outputs_into(y[:n], inner[:n], down_EDI[expert])
        for expert, n in enumerate(counts if grads is not None else ()):
            if n and grads is not None:
                forms.inputs_into(dinner[:n], dy[:n], down_EDI[expert])
                forms.inputs_into(dx[:n], dh[:n], up_EFD[expert])
                forms.weights_into(grads[0][expert], dh[:n], x[:n])
                forms.weights_into(grads[1][expert], dy[:n], inner[:n])
        return y

    return run


class Cell:
    """One setting: everybody's turns, and what comes of them."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        dtype, self.is_backward = getattr(torch, case["dtype"]), case["backward"]
        self.experts = experts_of(case["experts"], dtype)
        x_TD = torch.randn(case["tokens"], WIDTH).to(dtype).requires_grad_(self.is_backward)
        weights_TK, indices_TK = choices(case["tokens"], case["experts"], case["k"], skewed=case["skewed"])
        self.leaf = weights_TK.to(dtype).requires_grad_(self.is_backward)
        self.everybody = runners(self.experts, x_TD, self.leaf, indices_TK)
        rows = indices_TK.numel()
        self.floors = floors(min(rows, FLOOR_ROWS), dtype, backward=self.is_backward)
        self.scale = dict.fromkeys(self.floors, max(rows / FLOOR_ROWS, 1.0))
        self.everybody |= self.floors
        self.everybody[PRODUCTS] = products(self.experts, indices_TK, backward=self.is_backward)
        self.outputs: dict[str, Tensor] = {}
        self.cache = torch.ones(CACHE_NUMBERS)

    def _difference(self) -> float:
        """Return how far the backends' results are from ours, of the largest number."""
        first, *others = (self.outputs[name] for name in (OURS, *THEIRS) if name in self.outputs)
        return max(float((other - first).abs().max() / first.abs().max()) for other in others)

    def turn(self, name: str) -> float:
        """Return the processor seconds of one pass."""
        self.cache.sum()
        is_bare = name in self.floors or name == PRODUCTS
        is_graph = self.is_backward and not is_bare
        start = time.process_time()
        with torch.set_grad_enabled(is_graph):
            y = self.everybody[name]()
            if is_graph:
                torch.autograd.backward(y, torch.ones_like(y))
            # Giving the gradients' memory back is a part of a step.
            self.experts.zero_grad(set_to_none=True)
        seconds = time.process_time() - start
        if not is_bare and name not in self.outputs:
            self.outputs[name] = y.detach().float()
        return seconds * self.scale.get(name, 1.0)

    def measure(self, budget_s: float, rng: np.random.Generator) -> dict[str, Any]:
        """Return the ratios of as many rounds as `budget_s` allows."""
        began, behind = time.monotonic(), {}
        is_long = self.case["tokens"] == max(SIZES["tokens"])
        if not is_long:
            for name in self.everybody:
                self.turn(name)
        rounds: list[dict[str, float]] = []
        while len(rounds) < MAX_ROUNDS and (len(rounds) < MIN_ROUNDS or time.monotonic() - began < budget_s):
            names = list(self.everybody)
            rounds.append({names[i]: self.turn(names[i]) for i in rng.permutation(len(names))})
            if len(rounds) == 1:
                limit = (BEHIND_LONG if is_long else BEHIND) * min(
                    rounds[0][name] for name in THEIRS if name in names
                )
                for name in [name for name in THEIRS if name in names and rounds[0][name] > limit]:
                    behind[name] = rounds[0].pop(name) / rounds[0][OURS]
                    del self.everybody[name]
        return self._judged(rounds, behind, rng)

    def _judged(
        self, rounds: list[dict[str, float]], behind: dict[str, float], rng: np.random.Generator
    ) -> dict[str, Any]:
        ratios = {name: [one[OURS] / one[name] for one in rounds] for name in self.everybody if name != OURS}
        rivals = {name: statistics.median(ratios[name]) for name in THEIRS if name in ratios}
        best = max(rivals, key=rivals.__getitem__)
        return {
            **self.case,
            "largest_difference": self._difference(),
            "rounds": len(rounds),
            "best_backend": best,
            "over_best_backend": _interval(ratios[best], rng),
            "over_backend": rivals | {name: 1 / times for name, times in behind.items()},
            "over_floor": _interval(ratios["floor"], rng),
            "over_fast_floor": _interval(ratios["fast_floor"], rng),
            "over_products": _interval(ratios[PRODUCTS], rng),
            "products_over_floor": _interval([one[PRODUCTS] / one["floor"] for one in rounds], rng),
        }


def _interval(values: list[float], rng: np.random.Generator, resamples: int = 1000) -> dict[str, float]:
    array = np.array(values)
    medians = np.median(array[rng.integers(len(array), size=(resamples, len(array)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"value": float(np.median(array)), "low": float(low), "high": float(high)}


def cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the settings that the options leave; those of the same experts follow each other."""
    wanted = {name: getattr(options, name) or values for name, values in SIZES.items()}
    wanted |= {"skewed": (False, True), "backward": (False, True)}
    order = sorted(wanted, key=lambda name: name not in ("experts", "dtype"))
    found = []
    for values in itertools.product(*(wanted[name] for name in order)):
        case = dict(zip(order, values, strict=True))
        # Which expert one token goes to makes no odds.
        if not (case["skewed"] and case["tokens"] == 1):
            found.append({name: case[name] for name in wanted})
    return found


def name_of(case: dict[str, Any]) -> str:
    """Return the name of a setting's file."""
    ends = ("skewed" if case["skewed"] else "even", "backward" if case["backward"] else "forward")
    sizes = (f"{case['experts']}x{case['k']}", f"{case['tokens']}", case["dtype"])
    return "_".join((*sizes, *ends))


def work(case: dict[str, Any]) -> float:
    """Return about how long a setting takes beside others: a constant, and what its products cost."""
    dear = (3 if case["backward"] else 1) * (4 if case["dtype"] == "float32" else 1)
    pairs: int = case["tokens"] * case["k"]
    return 1 + pairs * dear / 8000


def measure_missing(options: argparse.Namespace) -> None:
    """Measure what the folder lacks, say how far it is, and leave what is done to the next start."""
    paths = {options.folder / f"{name_of(case)}.json": case for case in cases(options)}
    missing = {path: case for path, case in paths.items() if not path.exists()}
    print(f"{len(missing)} of {len(paths)} settings are missing", flush=True)
    began, done, total = time.monotonic(), 0.0, sum(map(work, missing.values()))
    for number, (path, case) in enumerate(missing.items(), 1):
        row = Cell(case).measure(options.cell_s, np.random.default_rng(0))
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**row, "commit": record.commit()}), encoding="utf-8")
        part.replace(path)
        done += work(case)
        left = (time.monotonic() - began) * (total / done - 1) / 60
        best, own = (row[f"over_{name}"]["value"] for name in ("best_backend", "floor"))
        told = f"{best:.2f} of {row['best_backend']}, {own:.2f} of the floor"
        print(f"{number}/{len(missing)} {path.stem}: {told}; {left:.0f} minutes left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where each setting has its file")
    parser.add_argument("--cell-s", type=float, default=2.0, help="seconds for the rounds of one setting")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    for name, values in SIZES.items():
        parser.add_argument(f"--{name}", nargs="*", type=type(values[0]), choices=values)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.write:
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in options.folder.glob("*.json")]
        rows.sort(key=lambda row: [row[key] for key in moe_table.ORDER])
        result = {"rows": rows, "fingerprint": "random numbers of seed 0"}
        print(record.write("moe", result, seed=0).name, len(rows), "settings")
        moe_table.write(rows)
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measure_missing(options)


if __name__ == "__main__":
    main()
