"""What a gate costs of its layer, and what recording costs of a model.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_gate_overhead [--tokens 4096 32768] [--rounds 5]

Processor seconds of one thread, turn by turn; recorded are medians of the ratios of a round. A gate's share
is its forward pass, the plan included, over that of the layer with this gate; recording's is the forward pass
of a model with `GateHook.recording` over one without, less 1.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

from benchmarks.record import write
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


def gate_rows(tokens: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    x_TD = torch.randn(tokens, WIDTH)
    for num_experts, k in LAYERS:
        experts = Experts(width=WIDTH, inner=INNER, num_experts=num_experts)
        for name in GATES:
            config = {"k": k} if name in ("top_k", "loss_free") else {}
            gate = registry.get(name)(width=WIDTH, num_experts=num_experts, **config).eval()
            layer = MoE(gate=gate, experts=experts).eval()
            found = shares(functools.partial(gate, x_TD), functools.partial(layer, x_TD), rounds)
            assert layer.plan is not None
            rows.append(
                {
                    "gate": name, "tokens": tokens, "experts": num_experts,
                    "pairs_a_token": getattr(layer.plan, "num_pairs", 0) / tokens,
                    "share": statistics.median(found), "most": max(found),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


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
    row = {
        "tokens": ids_BS.numel(),
        "layers": 2,
        "extra": statistics.median(found) - 1,
        "most": max(found) - 1,
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", nargs="*", type=int, default=[4096, 32768])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gates = [row for tokens in options.tokens for row in gate_rows(tokens, options.rounds)]
    recording = recording_row(min(options.tokens), options.rounds)
    write(
        "gate_overhead",
        {"gates": gates, "recording": recording, "fingerprint": "random numbers of seed 0"},
        seed=0,
    )


if __name__ == "__main__":
    main()
