"""Executors against the experts backends of transformers: the same experts and choices, turn by turn.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_moe [--rounds N] [--experts 16]

Times are processor seconds of one thread, the least of some rounds in which everybody has a turn; what is
recorded are ratios. The floor is the same number of operations as two large products of the same precision.
Predictions stand in benchmarks/nn/NOTES.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks.record import write
from turnout.nn.executors.auto import make_executor
from turnout.nn.plan import SparsePlan

WIDTH = INNER = 1024
OURS = ("auto", "loop")
THEIRS = ("eager", "grouped_mm", "batched_mm")
MAX_COPIED_ROWS = 32
"""`batched_mm` copies the weights of each pair; beyond so many pairs that is left out."""

CASES = (
    # experts, k, tokens, dtype, skewed, backward
    *((16, 2, tokens, "float32", False, back) for tokens in (1, 16, 256, 4096) for back in (False, True)),
    *((64, 8, tokens, "float32", False, back) for tokens in (1, 16, 256) for back in (False, True)),
    (16, 2, 256, "float32", True, False),
    (16, 2, 1, "bfloat16", False, False),
    (16, 2, 256, "bfloat16", False, False),
)


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


def runners(
    experts: OlmoeExperts, x_TD: Tensor, weights_TK: Tensor, indices_TK: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Return what computes the layer, by name. Making a plan is part of our time."""

    def ours(name: str) -> Callable[[], Tensor]:
        executor = make_executor(name)

        def run() -> Tensor:
            plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=experts.num_experts)
            return executor.run(x_TD, plan, experts)

        return run

    def theirs(name: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            experts.config._experts_implementation = name
            out: Tensor = experts(x_TD, indices_TK, weights_TK)
            return out

        return run

    found = {f"turnout {name}": ours(name) for name in OURS}
    names = [name for name in THEIRS if name != "batched_mm" or indices_TK.numel() <= MAX_COPIED_ROWS]
    return found | {f"transformers {name}": theirs(name) for name in names}


def floor(x_TD: Tensor, rows: int) -> Callable[[], Tensor]:
    """Return the same operations as two products."""
    x_ND = x_TD.repeat(-(-rows // len(x_TD)), 1)[:rows].detach().requires_grad_(x_TD.requires_grad)
    up_FD = torch.randn(2 * INNER, WIDTH, dtype=x_TD.dtype, requires_grad=x_TD.requires_grad)
    down_DI = torch.randn(WIDTH, INNER, dtype=x_TD.dtype, requires_grad=x_TD.requires_grad)
    return lambda: functional.linear(functional.linear(x_ND, up_FD)[:, :INNER], down_DI)


def timed(run: Callable[[], Tensor], *, backward: bool) -> float:
    start = time.process_time()
    with torch.set_grad_enabled(backward):
        y = run()
        if backward:
            y.backward(torch.ones_like(y))
    return time.process_time() - start


def measure(case: tuple[int, int, int, str, bool, bool], rounds: int) -> dict[str, Any]:
    num_experts, k, tokens, dtype, skewed, backward = case
    precision = getattr(torch, dtype)
    experts = experts_of(num_experts, k, precision)
    x_TD = torch.randn(tokens, WIDTH).to(precision).requires_grad_(backward)
    weights_TK, indices_TK = choices(tokens, num_experts, k, skewed=skewed)
    everybody = runners(experts, x_TD, weights_TK.to(precision), indices_TK)
    everybody["floor"] = floor(x_TD, tokens * k)
    agreed = [run().detach().float() for name, run in everybody.items() if name != "floor"]
    far = max(float((other - agreed[0]).abs().max() / agreed[0].abs().max()) for other in agreed[1:])
    best = dict.fromkeys(everybody, float("inf"))
    for _ in range(rounds):
        for name, run in everybody.items():
            best[name] = min(best[name], timed(run, backward=backward))
            experts.zero_grad(set_to_none=True)
    rivals = {name: value for name, value in best.items() if name.startswith("transformers")}
    rival = min(rivals, key=rivals.__getitem__)
    names = ("experts", "k", "tokens", "dtype", "skewed", "backward")
    return {
        **dict(zip(names, case, strict=True)),
        "largest_difference": far,
        "best_backend": rival.removeprefix("transformers "),
        "over_best_backend": best["turnout auto"] / best[rival],
        "over_floor": {name: value / best["floor"] for name, value in best.items() if name != "floor"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--experts", type=int, choices=(16, 64), help="the cases of one number of experts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for case in CASES:
        if options.experts not in (None, case[0]):
            continue
        rounds = options.rounds if case[2] < 4096 else max(options.rounds // 2, 2)
        rows.append(measure(case, rounds))
        print(rows[-1], flush=True)
    write("moe", {"rows": rows, "rounds": options.rounds, "fingerprint": "random numbers of seed 0"}, seed=0)


if __name__ == "__main__":
    main()
