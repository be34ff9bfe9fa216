"""This module measures what a batch that disagrees costs beside the dense model, at several sizes.

Random decisions, of which every block is called by some sequences of the batch and never by all, so that
nothing is saved by skipping a block for everybody: what is left is the price of the wrapper against the rows
that are spared. The weights are random, since time does not depend on them. Dense and routed take turns; a
figure is the median of their pairs' ratios. The dense model is called as anybody calls it; since the wrapper
decodes in inference mode, which the library's `generate` does not, it is also timed there. Since the wrapper
also has less to do between two tokens, it stands beside itself with all blocks executed, too. `--quick` is
small and writes nothing.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import record
from benchmarks.depth_drllm_speed import BESIDE, all_executed, answer, decode, pair
from turnout.core.rng import make_rng
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.contract import DepthRouter
from turnout.nn.tiny import tiny_llama

SEED = 0
VOCABULARY = 64
HEAD = 64
"""Width of a head; narrow models have four narrower ones."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    layers: int = 12
    prompt_tokens: int = 16
    executed: float = 0.67
    """Expected share of the sequences that call a block."""
    widths: tuple[tuple[int, int, int, tuple[int, ...]], ...] = (
        (64, 30, 32, (2, 4, 8, 16)), (128, 24, 32, (2, 4, 8, 16)), (256, 16, 32, (2, 4, 8, 16)),
        (512, 12, 24, (8,)), (768, 8, 16, (8,)), (1024, 6, 16, (8,)),
    )  # fmt: skip
    """(width, pairs, new tokens, sequences)."""


QUICK = Size(layers=3, widths=((32, 2, 4, (2, 3)),))


class Planned(DepthRouter):
    """Decides by a plan that is given, one row a sequence."""

    def __init__(self, counts_BL: Tensor) -> None:
        super().__init__()
        self.counts_BL, self.layers = counts_BL, counts_BL.shape[1]

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        """Return the plan's column."""
        return self.counts_BL[:, layer]

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"counts_BL": self.counts_BL.tolist()}


def mixed_counts(size: Size, batch: int) -> Tensor:
    """Return counts_BL of 0 and 1 where every block has sequences that call it and some that do not."""
    rng = make_rng(SEED, "mixed")
    counts_BL = torch.from_numpy((rng.random((batch, size.layers)) < size.executed).astype("int64"))
    for layer in range(size.layers):
        counts_BL[layer % batch, layer], counts_BL[(layer + 1) % batch, layer] = 1, 0
    return counts_BL


def measure(size: Size) -> dict[str, Any]:
    """Return one line a width and number of sequences."""
    lines = []
    for width, pairs, new_tokens, batches in size.widths:
        heads = max(4, width // HEAD)
        model = tiny_llama(vocab_size=VOCABULARY, width=width, layers=size.layers, heads=heads, seed=SEED)
        routed = RoutedDepth(model=model)
        for batch in batches:
            counts_BL = mixed_counts(size, batch)
            generator = torch.Generator().manual_seed(SEED)
            ids_BT = torch.randint(4, VOCABULARY, (batch, size.prompt_tokens), generator=generator)
            told = (routed, ids_BT, torch.ones_like(ids_BT), new_tokens)
            work, light = partial(answer, *told), partial(decode, *told)
            work()
            found = pair(routed, Planned(counts_BL), [work], pairs)
            beside = pair(routed, Planned(counts_BL), [light], pairs)
            same = pair(routed, Planned(counts_BL), [light], pairs, beside=all_executed(routed))
            about: dict[str, Any] = {"width": width, "batch": batch, "new_tokens": new_tokens}
            about |= {"executed_share": float(counts_BL.float().mean())}
            lines.append({**about, **found, "both_in_inference_mode": beside, BESIDE: same})
            speeds = (round(one["speedup_cpu"], 3) for one in (found, beside, same))
            print(width, batch, *speeds, file=sys.stderr, flush=True)
    return {"size": asdict(size), "widths": lines}


def main(arguments: list[str]) -> None:
    """Write `depth_mixed.json`."""
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    result = measure(QUICK if is_quick else Size())
    if not is_quick:
        print(record.write("depth_mixed", result, seed=SEED).name)


if __name__ == "__main__":
    main(sys.argv[1:])
