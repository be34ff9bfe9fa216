"""Executors on a GPU, at the layer shapes of OLMoE-1B-7B and Qwen3-30B-A3B: bf16, forward and backward.

    python -m benchmarks.bench_moe_gpu [--shape olmoe qwen3] [--tokens 4096 8192 16384 32768] [--rounds 20]

Against the grouped product with permutation of its own, transformers' `grouped_mm`, and ScatterMoE and
MegaBlocks where they are installed. Each round gives everybody a turn in a new order, between two events of
the device; recorded are medians of the ratios of a round, and the share of the roofline: the larger of FLOPs
by the speed of a large product and bytes by the speed of a copy, both measured here. Without a GPU it says so
and ends. Predictions stand in benchmarks/nn/NOTES.md.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks.moe_gpu_peers import PEERS, Run
from benchmarks.record import write
from turnout.core.errors import TurnoutError
from turnout.nn.executors.auto import make_executor
from turnout.nn.plan import SparsePlan

SHAPES = {"olmoe": (2048, 1024, 64, 8), "qwen3": (2048, 768, 128, 8)}
"""Width, inner, experts, k: OLMoE-1B-7B and Qwen3-30B-A3B."""

OURS = ("triton", "grouped", "segments")


def experts_of(width: int, inner: int, num_experts: int, k: int) -> OlmoeExperts:
    config = OlmoeConfig(
        hidden_size=width, intermediate_size=inner, num_experts=num_experts, num_experts_per_tok=k
    )
    config._experts_implementation = "grouped_mm"
    with torch.device("cuda"):
        experts = OlmoeExperts(config).to(torch.bfloat16)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.02)
    return experts


def contestants(experts: OlmoeExperts, weights_TK: Tensor, indices_TK: Tensor) -> dict[str, Run]:
    """Return what computes the layer, by name; who is not installed is left out."""
    found: dict[str, Run] = {"transformers grouped_mm": lambda x_TD: experts(x_TD, indices_TK, weights_TK)}
    for name in OURS:
        try:
            executor = make_executor(name)
        except TurnoutError as error:
            print(f"without {name}: {error}")
            continue

        def ours(x_TD: Tensor, executor: Any = executor) -> Tensor:
            plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=experts.num_experts)
            y_TD: Tensor = executor.run(x_TD, plan, experts)
            return y_TD

        found[f"turnout {name}"] = ours
    for peer in PEERS:
        try:
            found[peer.__name__] = peer(experts, weights_TK, indices_TK)
        except ImportError as error:
            print(f"without {peer.__name__}: {error}")
    return found


def timed_ms(work: Callable[[], object]) -> float:
    """Return the milliseconds between two events of the device."""
    begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def roofline() -> tuple[float, float]:
    """Return (FLOPs per ms, bytes per ms) of a large product and of a copy, the best of some."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.empty(2**30, device="cuda", dtype=torch.uint8) for _ in range(2))
    product = min(timed_ms(lambda: a @ b) for _ in range(10))
    copy = min(timed_ms(lambda: target.copy_(source)) for _ in range(10))
    return 2 * 8192**3 / product, 2 * 2**30 / copy


def measure(shape: str, tokens: int, rounds: int, *, backward: bool) -> dict[str, Any]:
    """Return the median times and ratios of one setting."""
    width, inner, num_experts, k = SHAPES[shape]
    random = torch.Generator("cuda").manual_seed(0)
    experts = experts_of(width, inner, num_experts, k)
    scores_TE = torch.rand(tokens, num_experts, generator=random, device="cuda")
    indices_TK = scores_TE.topk(k).indices
    weights_TK = torch.rand(tokens, k, generator=random, device="cuda").softmax(-1).bfloat16()
    x_TD = torch.randn(tokens, width, generator=random, device="cuda").bfloat16().requires_grad_(backward)
    weights_TK.requires_grad_(backward)
    everybody = contestants(experts, weights_TK, indices_TK)

    def turn(run: Run) -> None:
        with torch.set_grad_enabled(backward):
            y_TD = run(x_TD)
            if backward:
                torch.autograd.backward(y_TD, torch.ones_like(y_TD))
        experts.zero_grad(set_to_none=True)

    times: dict[str, list[float]] = {name: [] for name in everybody}
    order = np.random.default_rng(0)
    for number in range(rounds + 3):
        for index in order.permutation(len(everybody)):
            name = list(everybody)[index]
            took = timed_ms(functools.partial(turn, everybody[name]))
            if number >= 3:
                times[name].append(took)
    flops_per_ms, bytes_per_ms = roofline()
    flops = 6 * tokens * k * width * inner * (3 if backward else 1)
    weight_bytes = sum(p.nbytes for p in experts.parameters()) * (3 if backward else 1)
    least_ms = max(flops / flops_per_ms, (weight_bytes + 2 * x_TD.nbytes) / bytes_per_ms)
    median = {name: statistics.median(took) for name, took in times.items()}
    return {
        "shape": shape,
        "tokens": tokens,
        "backward": backward,
        "ms": median,
        "share_of_roofline": {name: least_ms / took for name, took in median.items()},
        "over": {
            name: statistics.median(a / b for a, b in zip(times["turnout grouped"], took, strict=True))
            for name, took in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", nargs="*", type=int, default=[4096, 8192, 16384, 32768])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench_moe_gpu needs a CUDA device, and there is none: nothing was measured")
        return
    rows = []
    for shape in options.shape:
        for tokens in options.tokens:
            for backward in (False, True):
                rows.append(measure(shape, tokens, options.rounds, backward=backward))
                print(rows[-1], flush=True)
    device = torch.cuda.get_device_name()
    write("moe_gpu", {"rows": rows, "device": device, "fingerprint": "random numbers of seed 0"}, seed=0)


if __name__ == "__main__":
    main()
