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
from benchmarks.depth_judging import TOKENIZER, as_batch, interval, judge, with_router
from turnout.core.errors import sentence
from turnout.datasets.procedural import Question
from turnout.nn.depth import RoutedDepth, load_depth, save_depth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.tiny import Batch

BASE = "base"
HALVINGS = 9
KIND = "shared"
"""Whose time is measured."""
LAYERS = 0.7
"""Share of the blocks that routers are also set to call, beside the knob that was chosen for quality."""


@dataclass(frozen=True)
class Pairs:
    """How much is timed."""

    new_tokens: int = 48
    """Of every answer, whatever it says: the questions' own answers are a few letters."""
    singles: int = 24
    """Prompts of the test that are decoded alone, and beside others of the same path."""
    repeats: int = 4
    mixed_repeats: int = 8


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
    folder: Path, asked: Mapping[str, Sequence[Question]], right_by_seed: Sequence[float], pairs: Pairs
) -> dict[str, Any]:
    """Return what decoding takes under the routers that `keep` wrote, each beside the dense model.

    Each is timed at the knob that was chosen for it and at the one that calls `LAYERS` of the blocks on the
    questions of the choice. `right_by_seed` is how many questions of the test each was recorded to answer at
    the first. They are answered once more, so that quality and time are those of the same router; another
    number, and a folder that holds none, raise `RuntimeError`.
    """
    if not (folder / BASE).is_dir():
        raise RuntimeError(
            sentence(f"no weights in {folder.name!r}", do="remove its cell and measure it with --base")
        )
    splits = {name: as_batch(group) for name, group in asked.items()}
    prompts = [question.prompt for question in asked["test"]]
    lines = []
    for seed, recorded in enumerate(right_by_seed):
        model = LlamaForCausalLM.from_pretrained(folder / BASE).eval()
        routed = load_depth(folder / f"{KIND} {seed}", model)
        router: Any = routed.router
        routed.set_router(None)
        dense_Q = judge(routed, splits["test"])[0]
        routed.set_router(router)
        got = float(judge(routed, splits["test"])[0].mean())
        if abs(got - recorded) > 1e-9:
            what = f"router {seed} of {folder.name!r}: share of right answers"
            raise RuntimeError(sentence(what, allowed=recorded, got=got))
        knobs = [router.knob, knob_at(routed, router, splits["choice"], LAYERS * routed.layers)]
        for is_chosen, knob in zip((True, False), knobs, strict=True):
            router.set_knob(knob)
            right_Q, calls_Q = with_router(routed, router, splits["test"])
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
            lines.append({"router": seed, "knob": knob, "is_chosen": is_chosen, **quality, **found})
    return {"new_tokens": pairs.new_tokens, "routers": lines}


def knob_at(routed: RoutedDepth, router: DrLLMRouter, batch: Batch, calls: float) -> float:
    """Return the lowest knob at which a router calls at least so many blocks a question, by halving."""
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        router.set_knob((low + high) / 2)
        if with_router(routed, router, batch)[1].mean() < calls:
            low = router.knob
        else:
            high = router.knob
    return high
