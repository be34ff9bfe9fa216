"""This module times decoding under a trained depth router beside the dense model, and counts its FLOPs.

Both decode in inference mode, as the wrapper does by itself and the library's `generate` does not; mixed
batches are timed as they are called, too. The wrapper also has less to do between two tokens than the
library: beside itself with all blocks executed, a speedup is what routing brings and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnout.core.rng import make_rng
from turnout.nn.depth import FixedDepth, RoutedDepth, generate_grouped
from turnout.nn.depth.contract import DepthRouter
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.grouped import groups
from turnout.nn.flops import executed_flops
from turnout.nn.tiny import prompt_batch

BATCH = 8
MIXED = 4
"""Batches of different decisions that are timed."""

BESIDE = "beside_all_executed"
"""How a comparison is called in which the wrapper executes all blocks instead of the dense model."""


class Clock:
    """Adds up the time that a router's own methods take."""

    def __init__(self, router: DepthRouter) -> None:
        self.router = router
        self.spent_s = 0.0

    def __enter__(self) -> Clock:
        for name in ("plan", "decide"):
            object.__setattr__(self.router, name, self._timed(getattr(self.router, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("plan", "decide"):
            object.__delattr__(self.router, name)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            # Of the processor, since a busy machine may stop the router as well as what is around it.
            start = time.thread_time()
            try:
                return method(*args)
            finally:
                self.spent_s += time.thread_time() - start

        return timed


def measure(
    routed: RoutedDepth,
    router: DrLLMRouter,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    repeats: int,
    new_tokens: int,
    singles: int = BATCH,
    mixed_repeats: int | None = None,
) -> dict[str, Any]:
    """Return the seconds of decoding `new_tokens`, dense and routed, alone, in groups and mixed.

    The first `singles` prompts are decoded alone, each of them `repeats` times; mixed batches take their own
    number of repeats, since they are fewer.
    """
    ids_BT, mask_BT = prompt_batch(tokenizer, prompts)
    routed.set_router(router)
    with torch.no_grad():
        routed.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
    counts_BL = routed.counts_BL
    alone = [prompt_batch(tokenizer, [prompts[row]]) for row in range(singles)]
    # For each of these prompts a batch of those that are decided alike, itself where there are too few.
    alike = [next(group.tolist() for group in groups(counts_BL) if row in group) for row in range(singles)]
    same = [prompt_batch(tokenizer, [prompts[rows[i % len(rows)]] for i in range(BATCH)]) for rows in alike]
    ones = [partial(decode, routed, *one, new_tokens) for one in alone]
    groups_of = [partial(decode, routed, *one, new_tokens) for one in same]
    less = max(1, repeats // 2)
    found: dict[str, Any] = {
        "new_tokens": new_tokens,
        "decisions": len(groups(counts_BL)),
        "executed_share": float(counts_BL.float().mean()),
        "executed_share_alone": float(counts_BL[:singles].float().mean()),
        "repeated_share": float((counts_BL > 1).float().mean()),
        "batch_1": pair(routed, router, ones, repeats),
        "batch_8_grouped": pair(routed, router, groups_of, repeats),
        f"batch_1_{BESIDE}": pair(routed, router, ones, less, beside=all_executed(routed)),
        f"batch_8_grouped_{BESIDE}": pair(routed, router, groups_of, less, beside=all_executed(routed)),
        "router_share_of_time": _router_share(routed, router, alone[:BATCH], repeats, new_tokens),
        "router_share_of_time_batch_8": _router_share(routed, router, same[:BATCH], repeats, new_tokens),
    }
    found |= measure_mixed(
        routed, router, tokenizer, prompts, repeats=mixed_repeats or repeats, new_tokens=new_tokens
    )
    return found


def measure_mixed(
    routed: RoutedDepth,
    router: DepthRouter,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    repeats: int,
    new_tokens: int,
) -> dict[str, Any]:
    """Return the seconds of batches as they come, dense and routed: together, and split into groups."""
    starts = range(0, min(MIXED * BATCH, len(prompts)), BATCH)
    batches = [prompt_batch(tokenizer, prompts[at : at + BATCH]) for at in starts]
    mixed = [partial(decode, routed, *batch, new_tokens) for batch in batches]
    called, uncalled, paths = [], [], []
    routed.set_router(router)
    for ids_BT, mask_BT in batches:
        with torch.no_grad():
            routed.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
        # A step of a batch calls a block as often as the sequence that calls it most.
        most_L = routed.counts_BL.amax(dim=0)
        called.append(float(most_L.float().mean()))
        uncalled.append(float((most_L == 0).float().mean()))
        paths.append(len(groups(routed.counts_BL)))
    called_as = [partial(answer, routed, *batch, new_tokens) for batch in batches]
    split = [partial(_grouped, routed, *batch, new_tokens) for batch in batches]
    found: dict[str, Any] = {
        "called_share_mixed": called,
        "uncalled_share_mixed": uncalled,
        "paths_mixed": paths,
        "batch_8_mixed": pair(routed, router, mixed, repeats),
        "batch_8_mixed_as_called": pair(routed, router, called_as, repeats),
        "batch_8_mixed_split_into_groups": pair(routed, router, mixed, repeats, split),
        f"batch_8_mixed_{BESIDE}": pair(routed, router, mixed, repeats, beside=all_executed(routed)),
    }
    if isinstance(router, DrLLMRouter) and router.repeats:
        router.repeats = False
        found["batch_8_mixed_without_repeats"] = pair(routed, router, mixed, repeats)
        router.repeats = True
    routed.set_router(None)
    return found


def all_executed(routed: RoutedDepth) -> FixedDepth:
    """Return the router that executes every block."""
    return FixedDepth(counts=[1] * routed.layers)


def _options(new_tokens: int) -> dict[str, Any]:
    """Return what makes every answer as long, without what would hold its end back at every token."""
    return {"do_sample": False, "max_new_tokens": new_tokens, "eos_token_id": None}


def answer(routed: RoutedDepth, ids_BT: Tensor, mask_BT: Tensor, new_tokens: int) -> Tensor:
    """Return what the model answers greedily, `new_tokens` each, called as anybody calls it."""
    model: Any = routed.model
    out: Tensor = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **_options(new_tokens))
    return out


def decode(routed: RoutedDepth, ids_BT: Tensor, mask_BT: Tensor, new_tokens: int) -> Tensor:
    """Return what `answer` does, in inference mode."""
    with torch.inference_mode():
        return answer(routed, ids_BT, mask_BT, new_tokens)


def _grouped(routed: RoutedDepth, ids_BT: Tensor, mask_BT: Tensor, new_tokens: int) -> Tensor:
    with torch.inference_mode():
        return generate_grouped(routed, ids_BT, mask_BT, **_options(new_tokens))


def pair(
    routed: RoutedDepth,
    router: DepthRouter,
    works: Sequence[Callable[[], Any]],
    repeats: int,
    routed_works: Sequence[Callable[[], Any]] | None = None,
    beside: DepthRouter | None = None,
) -> dict[str, Any]:
    """Return the wall-clock and processor seconds of both ways, run in turn, and the FLOPs of both.

    Each work is timed `repeats` times dense and routed, one right after the other, first the one, then the
    other; a speedup is the median of these pairs' ratios, with the 95 % interval of that median by bootstrap.
    What all works take together, each at its median, is compared too: paths may differ in length. The dense
    model is not wrapped while it is timed; with `beside` it is, and that router decides.
    """
    routers = {"dense": beside, "routed": router}
    ways = {"dense": list(works), "routed": list(routed_works or works)}
    flops = dict.fromkeys(ways, 0.0)
    for name, todo in ways.items():
        routed.set_router(routers[name])
        flops[name] = float(sum(executed_flops(one)[1] for one in todo))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(repeats):
        order = list(ways) if turn % 2 == 0 else list(reversed(ways))
        for item in range(len(works)):
            for name in order:
                taken[name].append(_seconds(routed, routers[name], ways[name][item]))
    dense_RK, routed_RK = (np.array(taken[name]) for name in ("dense", "routed"))
    found: dict[str, Any] = {
        "pairs": len(dense_RK),
        "items": len(works),
        "flops_share": flops["routed"] / flops["dense"],
    }
    for column, kind in enumerate(("wall", "cpu")):
        ratio_R = dense_RK[:, column] / routed_RK[:, column]
        drawn_SR = make_rng(0, kind).choice(ratio_R, size=(2000, len(ratio_R)))
        low, high = np.quantile(np.median(drawn_SR, axis=1), [0.025, 0.975])
        found[f"speedup_{kind}"] = float(np.median(ratio_R))
        found[f"speedup_{kind}_interval"] = [float(low), float(high)]
        total, less = (
            np.median(taken_RK[:, column].reshape(repeats, -1), axis=0).sum()
            for taken_RK in (dense_RK, routed_RK)
        )
        found[f"speedup_{kind}_together"] = float(total / less)
        for name, seconds_RK in (("dense", dense_RK), ("routed", routed_RK)):
            found[f"{name}_{kind}_s"] = float(np.median(seconds_RK[:, column]))
    return found


def _seconds(routed: RoutedDepth, router: DepthRouter | None, work: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall-clock and the processor seconds of one work; without a router the model is bare."""
    routed.set_router(router)
    if router is None:
        routed.unwrap()
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    taken = time.perf_counter() - wall, time.thread_time() - cpu
    if router is None:
        routed.wrap()
    return taken


def _router_share(
    routed: RoutedDepth,
    router: DepthRouter,
    batches: Sequence[tuple[Tensor, Tensor]],
    repeats: int,
    new_tokens: int,
) -> float:
    routed.set_router(router)
    shares = []
    for ids_BT, mask_BT in [*batches] * repeats:
        with Clock(router) as clock:
            start = time.thread_time()
            decode(routed, ids_BT, mask_BT, new_tokens)
            shares.append(clock.spent_s / (time.thread_time() - start))
    return float(np.median(shares))
