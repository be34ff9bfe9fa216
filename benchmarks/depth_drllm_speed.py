"""This module times decoding under a trained depth router beside the dense model, and counts its FLOPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from turnout.nn.depth import RoutedDepth, generate_grouped
from turnout.nn.depth.contract import DepthRouter
from turnout.nn.depth.grouped import groups
from turnout.nn.flops import executed_flops
from turnout.nn.tiny import prompt_batch

BATCH = 8


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
            start = time.perf_counter()
            try:
                return method(*args)
            finally:
                self.spent_s += time.perf_counter() - start

        return timed


def measure(
    routed: RoutedDepth,
    router: DepthRouter,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    repeats: int,
    new_tokens: int,
) -> dict[str, Any]:
    """Return the seconds of decoding `new_tokens`, dense and routed, alone, in groups and mixed."""
    ids_BT, mask_BT = prompt_batch(tokenizer, prompts)
    routed.set_router(router)
    with torch.no_grad():
        routed.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
    counts_BL = routed.counts_BL
    largest = max(groups(counts_BL), key=len)
    alone = [prompt_batch(tokenizer, [prompts[row]]) for row in range(BATCH)]
    same = prompt_batch(tokenizer, [prompts[int(largest[i % len(largest)])] for i in range(BATCH)])
    mixed = prompt_batch(tokenizer, prompts[:BATCH])
    found: dict[str, Any] = {
        "new_tokens": new_tokens,
        "decisions": len(groups(counts_BL)),
        "executed_share": float(counts_BL.float().mean()),
        "executed_share_alone": float(counts_BL[:BATCH].float().mean()),
        "executed_share_grouped": float(counts_BL[largest].float().mean()),
        "batch_1": _pair(
            routed, router, lambda: [_generate(routed, *one, new_tokens) for one in alone], repeats
        ),
        "batch_8_grouped": _pair(routed, router, lambda: _generate(routed, *same, new_tokens), repeats),
        "batch_8_mixed": _pair(routed, router, lambda: _generate(routed, *mixed, new_tokens), repeats),
        "batch_8_mixed_split_into_groups": _pair(
            routed,
            router,
            lambda: _generate(routed, *mixed, new_tokens),
            repeats,
            lambda: _grouped(routed, *mixed, new_tokens),
        ),
        "router_share_of_time": _router_share(routed, router, alone[0], repeats, new_tokens),
    }
    routed.set_router(None)
    return found


def _options(new_tokens: int) -> dict[str, Any]:
    return {"do_sample": False, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}


def _generate(routed: RoutedDepth, ids_BT: Tensor, mask_BT: Tensor, new_tokens: int) -> Tensor:
    model: Any = routed.model
    out: Tensor = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **_options(new_tokens))
    return out


def _grouped(routed: RoutedDepth, ids_BT: Tensor, mask_BT: Tensor, new_tokens: int) -> Tensor:
    return generate_grouped(routed, ids_BT, mask_BT, **_options(new_tokens))


def _pair(
    routed: RoutedDepth,
    router: DepthRouter,
    work: Callable[[], Any],
    repeats: int,
    routed_work: Callable[[], Any] | None = None,
) -> dict[str, float]:
    """Return the best wall-clock and processor seconds of both, run in turn, and the FLOPs of both.

    The dense model is not wrapped while it is timed.
    """
    works = {"dense": work, "routed": routed_work or work}
    best = {f"{name}_{kind}": float("inf") for name in works for kind in ("wall_s", "cpu_s")}
    flops = {}
    for turn in range(repeats + 1):
        for name, one in works.items():
            routed.set_router(router if name == "routed" else None)
            if turn == 0:
                flops[f"{name}_flops"] = float(executed_flops(one)[1])
                continue
            if name == "dense":
                routed.unwrap()
            wall, cpu = time.perf_counter(), time.thread_time()
            one()
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            if name == "dense":
                routed.wrap()
            best[f"{name}_wall_s"] = min(best[f"{name}_wall_s"], wall)
            best[f"{name}_cpu_s"] = min(best[f"{name}_cpu_s"], cpu)
    return {
        **best,
        **flops,
        "speedup_wall": best["dense_wall_s"] / best["routed_wall_s"],
        "speedup_cpu": best["dense_cpu_s"] / best["routed_cpu_s"],
        "flops_share": flops["routed_flops"] / flops["dense_flops"],
    }


def _router_share(
    routed: RoutedDepth, router: DepthRouter, one: tuple[Tensor, Tensor], repeats: int, new_tokens: int
) -> float:
    routed.set_router(router)
    shares = []
    for _ in range(repeats):
        with Clock(router) as clock:
            start = time.perf_counter()
            _generate(routed, *one, new_tokens)
            shares.append(clock.spent_s / (time.perf_counter() - start))
    return min(shares)
