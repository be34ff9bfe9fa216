"""How deep must this sequence go? Blocks of a decoder that are skipped, executed or repeated.

Contract: `DepthRouter.decide(layer, hidden_BTD, mask_BT, plan) -> counts_B`, asked while the prompt is read;
`RoutedDepth` wraps a decoder and does what was decided, cache and batches included.

This file imports no torch, so that a name can be looked up without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.nn.depth.best_fixed import best_fixed_skip
    from turnout.nn.depth.checkpoint import load_depth, save_depth
    from turnout.nn.depth.contract import DepthRouter
    from turnout.nn.depth.fixed import FixedDepth
    from turnout.nn.depth.grouped import generate_grouped
    from turnout.nn.depth.random_skip import RandomSkip
    from turnout.nn.depth.rewards import right_answers
    from turnout.nn.depth.routed import RoutedDepth

_LAZY = {
    "DepthRouter": ".contract",
    "FixedDepth": ".fixed",
    "RandomSkip": ".random_skip",
    "RoutedDepth": ".routed",
    "best_fixed_skip": ".best_fixed",
    "generate_grouped": ".grouped",
    "load_depth": ".checkpoint",
    "right_answers": ".rewards",
    "save_depth": ".checkpoint",
}

__all__ = [
    "DepthRouter",
    "FixedDepth",
    "RandomSkip",
    "RoutedDepth",
    "best_fixed_skip",
    "generate_grouped",
    "load_depth",
    "right_answers",
    "save_depth",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
