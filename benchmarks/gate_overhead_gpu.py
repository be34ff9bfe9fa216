"""What a gate costs of its layer on a GPU, and what recording costs of a model: bf16, at two layer shapes.

`share` is what a layer takes longer than its executor with the plan at hand, where the queue of launches is
never empty, as inside a model: the device sleeps until all is launched. `share_from_empty` is that of a lone
layer on a device that waits for its launches. `kernels` is the time of the gate's kernels over the layer's,
as the profiler sums them, and `gate_launch_ms` what the processor needs for a gate: the first after a wait,
and the median of later ones. Times are between two events of the device, turn by turn; recorded are medians
of the ratios of a round, forward without gradients, and forward with backward. Recording's `extra` is of
passes inside one block, queue full; `extra_from_empty` is that of a block around one pass, its end included.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
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
WARM = 2
"""Rounds that do not count."""

CALLS = 4
"""Calls between two events where the queue is full; with backward half as many."""

SLEEPS = 6
"""Tries to let the device sleep long enough."""

CYCLES_A_MS = 2_000_000
"""Of a clock of 2 GHz; what is found to be too short is made longer."""

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


class Queue:
    """Times work of a device whose queue is full when it begins."""

    def __init__(self) -> None:
        self.sleep_ms, self.is_full = 5.0, True

    def timed_ms(self, work: Callable[[], object], calls: int) -> tuple[float, list[float]]:
        """Return the milliseconds of a call, and those of the processor for each.

        Where the device had begun before all was launched it sleeps longer the next time; `is_full` is
        False once that never helped, since the work waits for the device.
        """
        took, launches = 0.0, [0.0]
        for _ in range(SLEEPS):
            begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            torch.cuda._sleep(int(self.sleep_ms * CYCLES_A_MS))  # type: ignore[no-untyped-call]
            begin.record()
            at = [time.perf_counter()]
            for _ in range(calls):
                work()
                at.append(time.perf_counter())
            end.record()
            was_asleep = not begin.query()
            torch.cuda.synchronize()
            took = float(begin.elapsed_time(end)) / calls
            launches = [1000 * (b - a) for a, b in itertools.pairwise(at)]
            if was_asleep or not self.is_full:
                return took, launches
            self.sleep_ms = max(1.5 * self.sleep_ms, 1.5 * min(sum(launches), 100.0))
        self.is_full = False
        return took, launches


def rounds_of(turns: Turns, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of a call of each on an empty device, a round each."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + WARM):
        for name, work in turns.items():
            took = timed_ms(work)
            if number >= WARM:
                times[name].append(took)
    return times


def differences(whole: list[float], part: list[float]) -> float:
    """Return the median of what the whole takes longer than a part of it, over the whole."""
    return statistics.median(1 - b / a for a, b in zip(whole, part, strict=True))


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
        lone = rounds_of(turns, rounds)
        queue, calls = Queue(), CALLS // 2 if backward else CALLS
        full: dict[str, list[float]] = {"layer": [], "run": []}
        first, later = [], []
        for number in range(rounds + WARM):
            for part in full:
                took = queue.timed_ms(turns[part], calls)[0]
                full[part] += [took] if number >= WARM else []
            launches = queue.timed_ms(turns["gate"], CALLS)[1]
            first.append(launches[0])
            later += launches[1:]
        layer_ms = statistics.median(full["layer"])
        row["backward" if backward else "forward"] = {
            "layer_ms": layer_ms,
            "share": differences(full["layer"], full["run"]),
            "is_full": queue.is_full,
            "lone_layer_ms": statistics.median(lone["layer"]),
            "lone_gate_ms": statistics.median(lone["gate"]),
            "share_from_empty": differences(lone["layer"], lone["run"]),
            "gate_launch_ms": [statistics.median(first), statistics.median(later)],
            **kernels_of(turns["gate"], layer_ms),
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
        for _ in range(CALLS):
            work()
        torch.cuda.synchronize()
    events = [event for event in profile.key_averages() if event.self_device_time_total]
    found = {event.key: event.self_device_time_total / CALLS for event in events}
    longest = sorted(found, key=found.__getitem__, reverse=True)[:6]
    return {
        "kernels": sum(found.values()) / 1000 / layer_ms,
        "num_kernels": sum(event.count for event in events) / CALLS,
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

    lone = rounds_of({"plain": plain, "recorded": recorded}, rounds)
    queue, full = Queue(), []
    for number in range(rounds + WARM):
        without = queue.timed_ms(plain, CALLS // 2)[0]
        with hook.recording():
            # The end of the block waits, outside of what is measured.
            inside = queue.timed_ms(plain, CALLS // 2)[0]
        full += [(without, inside)] if number >= WARM else []
    extra = [b / a - 1 for a, b in full]
    return {
        "tokens": ids_BS.numel(),
        "layers": 2,
        "plain_ms": statistics.median(a for a, _ in full),
        "extra": statistics.median(extra),
        "most": max(extra),
        "is_full": queue.is_full,
        "lone_plain_ms": statistics.median(lone["plain"]),
        "extra_from_empty": statistics.median(
            b / a - 1 for a, b in zip(lone["plain"], lone["recorded"], strict=True)
        ),
    }
