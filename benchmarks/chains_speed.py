"""This module keeps the bases and routers of `bench_depth_chains`, and times decoding under them.

Time asks for an idle machine and training does not, so that both can be had apart: what was trained is kept
beside a base's cell, each router with the knob that was chosen for it, and is read again to be timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM

from benchmarks import depth_drllm_speed
from benchmarks.depth_judging import TOKENIZER, as_batch, interval, judge
from turnout.core.errors import sentence
from turnout.datasets.procedural import Question
from turnout.nn.depth import RoutedDepth, load_depth, save_depth
from turnout.nn.depth.drllm.router import DrLLMRouter

BASE = "base"
KIND = "shared"
"""Whose time is measured."""


@dataclass(frozen=True)
class Pairs:
    """How much is timed."""

    new_tokens: int = 48
    """Of every answer, whatever it says: the questions' own answers are a few letters."""
    singles: int = 32
    """Prompts of the test that are decoded alone, and beside others of the same path."""
    repeats: int = 4
    mixed_repeats: int = 12


QUICK = Pairs(new_tokens=6, singles=8, repeats=1, mixed_repeats=1)


def keep(routed: RoutedDepth, kinds: Mapping[str, Sequence[DrLLMRouter]], folder: Path) -> None:
    """Write the base and its routers, one a seed and kind, into `folder`."""
    routed.model.save_pretrained(folder / BASE)
    for kind, routers in kinds.items():
        for seed, router in enumerate(routers):
            routed.set_router(router)
            save_depth(folder / f"{kind} {seed}", routed)
    routed.set_router(None)


def measure(
    folder: Path, asked: Sequence[Question], right_by_seed: Sequence[float], pairs: Pairs
) -> dict[str, Any]:
    """Return what decoding takes under the routers that `keep` wrote, each beside the dense model.

    `right_by_seed` is how many of `asked` each router's model was recorded to answer. Every one answers them
    once more, so that quality and time are those of the same router; a router that answers another number,
    and a folder that holds none, raise `RuntimeError`.
    """
    if not (folder / BASE).is_dir():
        raise RuntimeError(
            sentence(f"no weights in {folder.name!r}", do="remove its cell and measure it with --base")
        )
    batch, prompts = as_batch(asked), [question.prompt for question in asked]
    lines = []
    for seed, recorded in enumerate(right_by_seed):
        model = LlamaForCausalLM.from_pretrained(folder / BASE).eval()
        routed = load_depth(folder / f"{KIND} {seed}", model)
        router: Any = routed.router
        routed.set_router(None)
        dense_Q = judge(routed, batch)[0]
        routed.set_router(router)
        right_Q, calls_Q = judge(routed, batch)
        if abs((got := float(right_Q.mean())) - recorded) > 1e-9:
            what = f"router {seed} of {folder.name!r}: share of right answers"
            raise RuntimeError(sentence(what, allowed=recorded, got=got))
        found = depth_drllm_speed.measure(
            routed,
            router,
            TOKENIZER,
            prompts,
            repeats=pairs.repeats,
            new_tokens=pairs.new_tokens,
            singles=pairs.singles,
            mixed_repeats=pairs.mixed_repeats,
        )
        quality = {
            "quality": interval(right_Q),
            "dense": interval(dense_Q),
            "executed_layers": interval(calls_Q),
        }
        lines.append({"router": seed, "knob": router.knob, **quality, **found})
    return {"new_tokens": pairs.new_tokens, "routers": lines}
