"""Executors against the experts backends of transformers: the same experts and choices, turn by turn.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_moe [--cell-s N] [--experts 16 --tokens 4096 ...]

Times are processor seconds of one thread. In every round each contestant has a turn, in a new order and
with cold caches, as between the layers of a model; recorded are medians of the ratios of a round, with the
interval of their median. A backend three times as slow as the fastest one in the first round drops out.

Two floors hold the same operations as large products without any expert: by torch's own products (`floor`),
and in the fastest form of `turnout.nn.executors.forms` (`fast_floor`). Predictions stand in
benchmarks/nn/NOTES.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks.record import write
from turnout.nn.executors import forms
from turnout.nn.executors.auto import make_executor
from turnout.nn.plan import SparsePlan

WIDTH = INNER = 1024
OURS = "turnout auto"
THEIRS = ("eager", "grouped_mm", "batched_mm")
MAX_COPIED_ROWS = 32
"""`batched_mm` copies the weights of each pair; beyond so many pairs that is left out."""

MAX_WHOLE = 16
"""`eager` makes a gradient of the size of all experts for each of them: left out of backward with more."""

MAX_ROUNDS, MIN_ROUNDS = 41, 3
BEHIND = 3.0
"""So many times as slow as the fastest backend in the first round, and a contestant drops out."""

CACHE_NUMBERS = 2**25
"""So many numbers, 128 MB, are read between two turns."""

SIZES = {"experts": (16, 64), "k": (2, 8), "tokens": (1, 16, 256, 4096), "dtype": ("float32", "bfloat16")}
Run = Callable[[], Tensor]


def experts_of(num_experts: int, k: int, dtype: torch.dtype) -> OlmoeExperts:
    config = OlmoeConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_experts=num_experts, num_experts_per_tok=k
    )
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


class Cell:
    """One setting: everybody's turns, and what comes of them."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        dtype, self.is_backward = getattr(torch, case["dtype"]), case["backward"]
        self.experts = experts_of(case["experts"], case["k"], dtype)
        x_TD = torch.randn(case["tokens"], WIDTH).to(dtype).requires_grad_(self.is_backward)
        weights_TK, indices_TK = choices(case["tokens"], case["experts"], case["k"], skewed=case["skewed"])
        self.leaf = weights_TK.to(dtype).requires_grad_(self.is_backward)
        self.everybody = runners(self.experts, x_TD, self.leaf, indices_TK)
        self.difference = self._difference()
        self.floors = floors(indices_TK.numel(), dtype, backward=self.is_backward)
        self.everybody |= self.floors
        self.cache = torch.ones(CACHE_NUMBERS)

    @torch.no_grad()
    def _difference(self) -> float:
        first, *others = (run().float() for run in self.everybody.values())
        return max(float((other - first).abs().max() / first.abs().max()) for other in others)

    def turn(self, name: str) -> float:
        """Return the processor seconds of one pass."""
        self.cache.sum()
        is_graph = self.is_backward and name not in self.floors
        start = time.process_time()
        with torch.set_grad_enabled(is_graph):
            y = self.everybody[name]()
            if is_graph:
                torch.autograd.backward(y, torch.ones_like(y))
            # Giving the gradients' memory back is a part of a step.
            self.experts.zero_grad(set_to_none=True)
        return time.process_time() - start

    def measure(self, budget_s: float, rng: np.random.Generator) -> dict[str, Any]:
        """Return the ratios of as many rounds as `budget_s` allows."""
        began, behind = time.monotonic(), {}
        if self.case["tokens"] < max(SIZES["tokens"]):
            for name in self.everybody:
                self.turn(name)
        rounds: list[dict[str, float]] = []
        while len(rounds) < MAX_ROUNDS and (len(rounds) < MIN_ROUNDS or time.monotonic() - began < budget_s):
            names = list(self.everybody)
            rounds.append({names[i]: self.turn(names[i]) for i in rng.permutation(len(names))})
            if len(rounds) == 1:
                limit = BEHIND * min(rounds[0][name] for name in THEIRS if name in names)
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
            "largest_difference": self.difference,
            "rounds": len(rounds),
            "best_backend": best,
            "over_best_backend": _interval(ratios[best], rng),
            "over_backend": rivals | {name: 1 / times for name, times in behind.items()},
            "over_floor": _interval(ratios["floor"], rng),
            "over_fast_floor": _interval(ratios["fast_floor"], rng),
        }


def _interval(values: list[float], rng: np.random.Generator, resamples: int = 1000) -> dict[str, float]:
    array = np.array(values)
    medians = np.median(array[rng.integers(len(array), size=(resamples, len(array)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"value": float(np.median(array)), "low": float(low), "high": float(high)}


def cases(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the settings that the options leave, the short ones first."""
    wanted = {name: getattr(options, name) or values for name, values in SIZES.items()}
    wanted |= {"skewed": (False, True), "backward": (False, True)}
    order = sorted(wanted, key=lambda name: name != "tokens")
    for values in itertools.product(*(wanted[name] for name in order)):
        case = dict(zip(order, values, strict=True))
        # Which expert one token goes to makes no odds.
        if not (case["skewed"] and case["tokens"] == 1):
            yield {name: case[name] for name in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell-s", type=float, default=10.0, help="seconds for the rounds of one setting")
    parser.add_argument("--name", default="moe", help="the result is benchmarks/results/NAME.json")
    for name, values in SIZES.items():
        parser.add_argument(f"--{name}", nargs="*", type=type(values[0]), choices=values)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, rows = np.random.default_rng(0), []
    for case in cases(options):
        rows.append(Cell(case).measure(options.cell_s, rng))
        row = rows[-1]
        best, own, fast = (row[f"over_{name}"]["value"] for name in ("best_backend", "floor", "fast_floor"))
        print(
            *case.values(),
            f"{best:.2f} of {row['best_backend']}, floors {own:.2f} and {fast:.2f}",
            flush=True,
        )
    write(options.name, {"rows": rows, "fingerprint": "random numbers of seed 0"}, seed=0)


if __name__ == "__main__":
    main()
