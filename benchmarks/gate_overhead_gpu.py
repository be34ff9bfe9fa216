"""What a gate costs of its layer on a GPU, and what recording costs of a model: bf16, at two layer shapes.

`share` is what the layer takes longer than its executor with the plan at hand: a gate alone would be measured
by its launches, which a layer hides. `alone` is the gate's own time over the layer's, `kernels` the time of
its kernels over it, as the profiler sums them. Times are between two events of the device, turn by turn;
recorded are medians of the ratios of a round, forward without gradients, and forward with backward.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import OlmoeConfig, OlmoeForCausalLM

from benchmarks.bench_moe_gpu import SHAPES, timed_ms
from benchmarks.record import write
from turnout.nn import registry
from turnout.nn.executors.auto import AutoExecutor
from turnout.nn.experts import Experts
from turnout.nn.gate_hook import GateHook
from turnout.nn.late import refuse_arrived
from turnout.nn.mixture import MoE
from turnout.nn.plan import SparsePlan

GATES = ("top_k", "loss_free", "switch")
WARM = 3
"""Rounds that do not count."""

INNER_CALLS = 4
"""Calls between two events."""

Turns = dict[str, Callable[[], object]]


def measure_all(tokens: list[int], rounds: int) -> None:
    """Measure every setting and write `gate_overhead_gpu.json`."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return
    torch.manual_seed(0)
    rows = []
    for shape, count, name in itertools.product(SHAPES, tokens, GATES):
        rows.append(gate_row(shape, name, count, rounds))
        print(rows[-1], flush=True)
    recording = [recording_row(count, rounds) for count in tokens]
    print(recording, flush=True)
    body = {"gates": rows, "recording": recording, "device": torch.cuda.get_device_name()}
    versions = {"torch": torch.__version__, "fingerprint": "random numbers of seed 0"}
    write("gate_overhead_gpu", {**body, **versions}, seed=0)


def medians(turns: Turns, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of a call of each, a round each."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + WARM):
        for name, work in turns.items():
            took = timed_ms(lambda work=work: [work() for _ in range(INNER_CALLS)]) / INNER_CALLS  # type: ignore[misc]
            if number >= WARM:
                times[name].append(took)
    return times


def gate_row(shape: str, name: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Return the shares of one gate in one layer."""
    width, inner, num_experts, k = SHAPES[shape]
    with torch.device("cuda"):
        experts = Experts(width=width, inner=inner, num_experts=num_experts).bfloat16()
        config = {} if name == "switch" else {"k": k}
        gate = registry.get(name)(width=width, num_experts=num_experts, **config).bfloat16().eval()
        x_TD = torch.randn(tokens, width).bfloat16()
    layer = MoE(gate=gate, experts=experts).eval()
    row: dict[str, Any] = {"shape": shape, "gate": name, "tokens": tokens}
    for backward in (False, True):
        x_TD.requires_grad_(backward)
        turns = turns_of(layer, x_TD, backward=backward)
        times = medians(turns, rounds)
        trio = list(zip(times["layer"], times["run"], times["gate"], strict=True))
        key = "backward" if backward else "forward"
        row[key] = {
            "layer_ms": statistics.median(times["layer"]),
            "gate_ms": statistics.median(times["gate"]),
            "share": statistics.median(1 - run / whole for whole, run, _ in trio),
            "alone": statistics.median(part / whole for whole, _, part in trio),
            **kernels_of(turns["gate"], statistics.median(times["layer"])),
        }
    refuse_arrived(wait=True)
    return row


def turns_of(layer: MoE, x_TD: Tensor, *, backward: bool) -> Turns:
    """Return what takes turns: the layer, its executor with the plan at hand, and its gate."""
    with torch.no_grad():
        plan = layer.gate(x_TD)
    assert isinstance(plan, SparsePlan)
    weights_N = plan.weights_N.detach().requires_grad_(backward)
    fixed = replace(plan, weights_N=weights_N, logits_TE=None, scores_TE=None)
    executor, dy_TD = AutoExecutor(), torch.ones_like(x_TD)
    dw_N = torch.ones_like(weights_N)

    def whole() -> None:
        y_TD = layer(x_TD)
        if backward:
            y_TD.backward(dy_TD)

    def run() -> None:
        y_TD = executor.run(x_TD, fixed, layer.experts)
        if backward:
            torch.autograd.backward(y_TD, dy_TD)

    def alone() -> None:
        found = layer.gate(x_TD)
        if backward:
            found.weights_N.backward(dw_N)

    def kept(work: Callable[[], None]) -> None:
        with torch.set_grad_enabled(backward):
            work()
        if backward:
            x_TD.grad = weights_N.grad = None
            layer.zero_grad(set_to_none=True)

    return {
        name: functools.partial(kept, work)
        for name, work in (("layer", whole), ("run", run), ("gate", alone))
    }


def kernels_of(work: Callable[[], object], layer_ms: float) -> dict[str, Any]:
    """Return the time of a gate's kernels over its layer's, and the six that take longest."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(INNER_CALLS):
            work()
        torch.cuda.synchronize()
    events = [event for event in profile.key_averages() if event.self_device_time_total]
    found = {event.key: event.self_device_time_total / INNER_CALLS for event in events}
    longest = sorted(found, key=found.__getitem__, reverse=True)[:6]
    return {
        "kernels": sum(found.values()) / 1000 / layer_ms,
        "num_kernels": sum(event.count for event in events) / INNER_CALLS,
        "longest_us": {key[:60]: found[key] for key in longest},
    }


def recording_row(tokens: int, rounds: int) -> dict[str, Any]:
    """Return what recording adds to two layers of the shape of OLMoE-1B-7B."""
    config = OlmoeConfig(
        vocab_size=256, hidden_size=2048, intermediate_size=1024, num_hidden_layers=2,
        num_attention_heads=16, num_key_value_heads=16, num_experts=64, num_experts_per_tok=8,
        max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.device("cuda"):
        model = OlmoeForCausalLM(config).bfloat16().eval()
        ids_BS = torch.randint(4, 256, (max(tokens // 4096, 1), min(tokens, 4096)))
    hook = GateHook(model, needs_rules=False)

    def plain() -> None:
        with torch.no_grad():
            model(input_ids=ids_BS, use_cache=False)

    def recorded() -> None:
        with hook.recording():
            plain()

    times = medians({"plain": plain, "recorded": recorded}, rounds)
    extra = [b / a - 1 for a, b in zip(times["plain"], times["recorded"], strict=True)]
    return {
        "tokens": ids_BS.numel(),
        "layers": 2,
        "plain_ms": statistics.median(times["plain"]),
        "extra": statistics.median(extra),
        "most": max(extra),
    }
