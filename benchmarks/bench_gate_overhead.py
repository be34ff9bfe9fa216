"""What a gate costs of its layer, and what recording costs of a model.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_gate_overhead --folder DIR [--tokens 4096 32768] [--rounds 5]
    python -m benchmarks.bench_gate_overhead --device cuda [--tokens 4096 32768] [--rounds 15]

On a GPU see `benchmarks.gate_overhead_gpu`. On a processor every setting has a file in the folder, so that a
run goes on where it was stopped; the result is written when all are there. Processor seconds of one thread,
turn by turn; recorded are medians of the ratios of a round. A gate's share is its forward pass, the plan
included, over that of the layer with this gate; recording's is the forward pass of a model with
`GateHook.recording` over one without, less 1.
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

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

from benchmarks.record import commit, write
from turnout.nn import registry
from turnout.nn.experts import Experts
from turnout.nn.gate_hook import GateHook
from turnout.nn.mixture import MoE

WIDTH = INNER = 1024
GATES = ("top_k", "switch", "loss_free")
LAYERS = ((16, 2), (64, 8))


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    with torch.no_grad():
        work()
    return time.process_time() - start


def shares(part: Callable[[], object], whole: Callable[[], object], rounds: int) -> list[float]:
    """Return the part's time over the whole's, a round each, after one that does not count."""
    return [seconds(part) / seconds(whole) for _ in range(rounds + 1)][1:]


def gate_row(name: str, num_experts: int, k: int, tokens: int, rounds: int) -> dict[str, Any]:
    x_TD = torch.randn(tokens, WIDTH)
    experts = Experts(width=WIDTH, inner=INNER, num_experts=num_experts)
    config = {"k": k} if name in ("top_k", "loss_free") else {}
    gate = registry.get(name)(width=WIDTH, num_experts=num_experts, **config).eval()
    layer = MoE(gate=gate, experts=experts).eval()
    found = shares(functools.partial(gate, x_TD), functools.partial(layer, x_TD), rounds)
    assert layer.plan is not None
    return {
        "gate": name, "tokens": tokens, "experts": num_experts,
        "pairs_a_token": getattr(layer.plan, "num_pairs", 0) / tokens,
        "share": statistics.median(found), "most": max(found),
    }  # fmt: skip


def recording_row(tokens: int, rounds: int) -> dict[str, Any]:
    config = OlmoeConfig(
        vocab_size=256, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=8, num_experts=16, num_experts_per_tok=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = OlmoeForCausalLM(config).eval()
    ids_BS = torch.randint(4, 256, (max(tokens // 512, 1), 512))
    hook = GateHook(model, needs_rules=False)

    def recorded() -> None:
        with hook.recording():
            model(input_ids=ids_BS, use_cache=False)

    found = shares(recorded, lambda: model(input_ids=ids_BS, use_cache=False), rounds)
    extra, most = statistics.median(found) - 1, max(found) - 1
    return {"tokens": ids_BS.numel(), "layers": 2, "extra": extra, "most": most}


def kept(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what stands in a file, or what is measured now and put there."""
    if not path.exists():
        torch.manual_seed(0)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**work(), "commit": commit()}), encoding="utf-8")
        part.replace(path)
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", nargs="*", type=int, default=[4096, 32768])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where each setting has its file (on a processor)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if options.device == "cuda":
        from benchmarks.gate_overhead_gpu import measure_all

        measure_all(options.tokens, options.rounds)
        return
    if options.folder is None:
        parser.error("--folder is needed on a processor")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    gates = []
    for tokens, (num_experts, k), name in itertools.product(options.tokens, LAYERS, GATES):
        path = options.folder / f"{name}_{num_experts}_{tokens}.json"
        gates.append(kept(path, functools.partial(gate_row, name, num_experts, k, tokens, options.rounds)))
    least = min(options.tokens)
    path = options.folder / f"recording_{least}.json"
    recording = kept(path, functools.partial(recording_row, least, options.rounds))
    write(
        "gate_overhead",
        {"gates": gates, "recording": recording, "fingerprint": "random numbers of seed 0"},
        seed=0,
    )


if __name__ == "__main__":
    main()
