"""Executors on a GPU, at the layer shapes of OLMoE-1B-7B and Qwen3-30B-A3B: bf16, forward and backward.

    python -m benchmarks.bench_moe_gpu [--shape olmoe qwen3] [--tokens 4096 8192 16384 32768] [--rounds 20]
                                       [--choices even skewed]
    python -m benchmarks.bench_moe_gpu --others [--shape gpt_oss olmoe_gelu] ...

`--others` measures experts that are not plain SwiGLU, into a file of their own, without peers that have none.
Choices are even, or skewed as those of `bench_moe`: expert e is liked 1 / (e + 1) as much. Against the
grouped product with permutation of its own, transformers' `grouped_mm`, and ScatterMoE and MegaBlocks where
they are installed. Each round gives everybody a turn in a new order, between two events of the device;
recorded are medians of the ratios of a round, and the share of the roofline: the larger of FLOPs by the speed
of a large product and bytes by the speed of a copy, both measured here. Without a GPU it says so and ends.
Predictions stand in benchmarks/nn/NOTES.md.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import GptOssConfig, OlmoeConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks.bench_moe import choices
from benchmarks.moe_gpu_peers import PEERS, Run
from benchmarks.record import write
from turnout.nn.executors.auto import make_executor
from turnout.nn.executors.grouped import GroupedExecutor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.executors.pair_rows import PairRows
from turnout.nn.experts import Stack
from turnout.nn.plan import SparsePlan

SHAPES = {"olmoe": (2048, 1024, 64, 8), "qwen3": (2048, 768, 128, 8)}
"""Width, inner, experts, k: OLMoE-1B-7B and Qwen3-30B-A3B."""

OTHERS = {"gpt_oss": (2880, 2880, 32, 4), "olmoe_gelu": (2048, 1024, 64, 8)}
"""The same of experts that are not plain SwiGLU: gpt-oss-20b's, with biases, clamps and turned weights, and
those of OLMoE-1B-7B with GELU."""

DEVICE = "cuda"

OURS = "turnout"
"""What `AutoExecutor` chooses."""

BY_TORCH = "grouped without kernels"
"""The grouped product where torch moves the rows around it, as without Triton."""

EXECUTORS = ("auto", "grouped")
OF_OTHERS = ("auto", "triton", BY_TORCH)
FEW = ("auto", "triton", "grouped", "batched")
"""Who else computes a few tokens, where `AutoExecutor` does not take Triton's kernels."""

MANY = 4096
"""From so many tokens on the peers take part."""


def experts_of(shape: str) -> OlmoeExperts | GptOssExperts:
    width, inner, num_experts, k = (SHAPES | OTHERS)[shape]
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_experts_per_tok": k}
    is_gpt_oss = shape == "gpt_oss"
    if is_gpt_oss:
        config = GptOssConfig(num_local_experts=num_experts, **sizes)
    else:
        act = "gelu" if shape.endswith("gelu") else "silu"
        config = OlmoeConfig(num_experts=num_experts, hidden_act=act, **sizes)
    config._experts_implementation = "grouped_mm"
    with torch.device(DEVICE):
        experts = (GptOssExperts if is_gpt_oss else OlmoeExperts)(config).to(torch.bfloat16)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.02)
    return experts


class ByTorch(GroupedExecutor):
    """The grouped product whose rows torch moves, however many."""

    def rows_of(self, plan: SparsePlan, _x_TD: Tensor, _stack: Stack) -> PairRows:
        """Return what moves rows around the products."""
        return PairRows(plan)


def contestants(
    experts: OlmoeExperts | GptOssExperts,
    weights_TK: Tensor,
    indices_TK: Tensor,
    executors: Sequence[str],
    peers: Sequence[Callable[..., Run]],
) -> dict[str, Run]:
    """Return what computes the layer, by name; who is not installed is left out."""
    found: dict[str, Run] = {"transformers grouped_mm": lambda x_TD: experts(x_TD, indices_TK, weights_TK)}
    for name in executors:
        executor = ByTorch() if name == BY_TORCH else make_executor(name)

        def ours(x_TD: Tensor, executor: Any = executor) -> Tensor:
            plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=experts.num_experts)
            y_TD: Tensor = executor.run(x_TD, plan, experts)
            return y_TD

        found[OURS if name == "auto" else f"{OURS} {name}"] = ours
    for peer in peers:
        try:
            found[peer.__name__] = peer(experts, weights_TK, indices_TK)
        except ImportError as error:
            print(f"without {peer.__name__}: {error}")
    return found


def timed_ms(work: Callable[[], object]) -> float:
    """Return the milliseconds between two events of the device."""
    begin, end = (torch.Event(DEVICE, enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


@functools.cache
def roofline() -> tuple[float, float]:
    """Return (FLOPs per ms, bytes per ms) of a large product and of a copy, the median of some."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.empty(2**30, device="cuda", dtype=torch.uint8) for _ in range(2))
    product = statistics.median(timed_ms(lambda: a @ b) for _ in range(20))
    copy = statistics.median(timed_ms(lambda: target.copy_(source)) for _ in range(20))
    return 2 * 8192**3 / product, 2 * 2**30 / copy


def interval(values: list[float], rng: np.random.Generator, resamples: int = 1000) -> dict[str, float]:
    """Return the median with its 95 % interval, by drawing rounds anew."""
    array = np.array(values)
    medians = np.median(array[rng.integers(len(array), size=(resamples, len(array)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"value": float(np.median(array)), "low": float(low), "high": float(high)}


class Setting:
    """One layer, one number of tokens, even or skewed choices, forward or forward with backward."""

    def __init__(self, shape: str, tokens: int, *, skewed: bool, backward: bool) -> None:
        self.shape, self.tokens, self.skewed, self.backward = shape, tokens, skewed, backward
        width, _, num_experts, k = (SHAPES | OTHERS)[shape]
        random = torch.Generator(DEVICE).manual_seed(0)
        self.experts = experts_of(shape)
        weights_TK, indices_TK = choices(tokens, num_experts, k, skewed=skewed)
        self.indices_TK, self.weights_TK = indices_TK.to(DEVICE), weights_TK.to(DEVICE, torch.bfloat16)
        self.x_TD = torch.randn(tokens, width, generator=random, device=DEVICE).bfloat16()
        self.dy_TD = torch.randn(tokens, width, generator=random, device=DEVICE).bfloat16()
        for leaf in (self.x_TD, self.weights_TK):
            leaf.requires_grad_(backward)
        has_peers = shape in SHAPES and tokens >= MANY
        executors = OF_OTHERS if shape in OTHERS else EXECUTORS if has_peers else FEW
        self.everybody = contestants(
            self.experts, self.weights_TK, self.indices_TK, executors, PEERS if has_peers else ()
        )

    def turn(self, run: Run) -> Tensor:
        """Run the layer once, and drop the gradients."""
        with torch.set_grad_enabled(self.backward):
            y_TD = run(self.x_TD)
            if self.backward:
                torch.autograd.backward(y_TD, self.dy_TD)
        for leaf in (self.x_TD, self.weights_TK, *self.experts.parameters()):
            leaf.grad = None
        return y_TD.detach()

    def errors(self) -> dict[str, float]:
        """Return how far each is from the naive loop in single precision, of its norm."""
        plan = SparsePlan.from_choices(
            self.weights_TK.detach().float(), self.indices_TK, num_experts=self.experts.num_experts
        )
        with torch.no_grad():
            truth = LoopExecutor().run(self.x_TD.float(), plan, copy.deepcopy(self.experts).float())
        found = {name: self.turn(run).float() for name, run in self.everybody.items()}
        return {name: float((y - truth).norm() / truth.norm()) for name, y in found.items()}

    def least_ms(self) -> float:
        """Return the roofline: the larger of FLOPs by a product's speed, and bytes by a copy's."""
        width, inner, _, k = (SHAPES | OTHERS)[self.shape]
        flops_per_ms, bytes_per_ms = roofline()
        passes = 3 if self.backward else 1
        flops = 6 * self.tokens * k * width * inner * passes
        busy = int((self.indices_TK.flatten().bincount() > 0).sum()) / self.experts.num_experts
        weights = busy * sum(p.nbytes for p in self.experts.parameters()) * passes
        return float(max(flops / flops_per_ms, (weights + 2 * self.x_TD.nbytes) / bytes_per_ms))

    def measure(self, rounds: int) -> dict[str, Any]:
        """Give everybody a turn a round, in a new order; three rounds do not count."""
        errors = self.errors()
        times: dict[str, list[float]] = {name: [] for name in self.everybody}
        rng = np.random.default_rng(0)
        for number in range(rounds + 3):
            for index in rng.permutation(len(self.everybody)):
                name = list(self.everybody)[index]
                took = timed_ms(functools.partial(self.turn, self.everybody[name]))
                if number >= 3:
                    times[name].append(took)
        least = self.least_ms()
        return {
            "shape": self.shape,
            "tokens": self.tokens,
            "skewed": self.skewed,
            "busiest": int(self.indices_TK.flatten().bincount().max()),
            "backward": self.backward,
            "errors": errors,
            "ms": {name: statistics.median(took) for name, took in times.items()},
            "least_ms": least,
            "share_of_roofline": {name: least / statistics.median(took) for name, took in times.items()},
            "ours_over": {
                name: interval([a / b for a, b in zip(times[OURS], took, strict=True)], rng)
                for name, took in times.items()
                if name != OURS
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--shape", nargs="*", choices=[*SHAPES, *OTHERS])
    parser.add_argument("--tokens", nargs="*", type=int, default=[4096, 8192, 16384, 32768])
    parser.add_argument("--choices", nargs="*", choices=("even", "skewed"), default=["even", "skewed"])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench_moe_gpu needs a CUDA device, and there is none: nothing was measured")
        return
    rows, shapes = [], OTHERS if options.others else SHAPES
    if not set(options.shape or ()) <= set(shapes):
        parser.error(f"--shape: choose from {', '.join(shapes)}")
    settings = itertools.product(options.shape or shapes, options.tokens, options.choices, (False, True))
    for shape, tokens, chosen, backward in settings:
        setting = Setting(shape, tokens, skewed=chosen == "skewed", backward=backward)
        rows.append(setting.measure(options.rounds))
        print(json.dumps(rows[-1]), flush=True)
    flops_per_ms, bytes_per_ms = roofline()
    result = {
        "rows": rows,
        "device": torch.cuda.get_device_name(),
        "peak": {"tflops": flops_per_ms / 1e9, "tb_per_s": bytes_per_ms / 1e9},
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "triton": version("triton"),
        },
        "fingerprint": "random numbers of seed 0",
    }
    write("moe_gpu_others" if options.others else "moe_gpu", result, seed=0)


if __name__ == "__main__":
    main()
