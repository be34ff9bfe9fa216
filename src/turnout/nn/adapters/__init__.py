"""This package routes tokens between LoRA adapters inside one network.

`AdapterPool` holds adapters in PEFT's own file format, in place on a `transformers` model; an
`AdapterRouter` weighs them, per token and per module. Classes load on first use, so that importing the
package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.nn.adapters.arrow import ArrowRouter
    from turnout.nn.adapters.contract import AdapterRouter, Context
    from turnout.nn.adapters.files import read_lora, write_lora
    from turnout.nn.adapters.glider import GliderRouter
    from turnout.nn.adapters.lora import Lora, LoraPart
    from turnout.nn.adapters.merged import MergedAdapters
    from turnout.nn.adapters.oracle import OracleAdapter
    from turnout.nn.adapters.phatgoose import PhatgooseRouter
    from turnout.nn.adapters.pool import AdapterPool
    from turnout.nn.adapters.saving import load_pool, save_pool
    from turnout.nn.adapters.single import SingleAdapter, best_single
    from turnout.nn.adapters.training import train_adapter, train_gate

_LAZY = {
    "AdapterPool": ".pool",
    "AdapterRouter": ".contract",
    "ArrowRouter": ".arrow",
    "Context": ".contract",
    "GliderRouter": ".glider",
    "Lora": ".lora",
    "LoraPart": ".lora",
    "MergedAdapters": ".merged",
    "OracleAdapter": ".oracle",
    "PhatgooseRouter": ".phatgoose",
    "SingleAdapter": ".single",
    "best_single": ".single",
    "load_pool": ".saving",
    "read_lora": ".files",
    "save_pool": ".saving",
    "train_adapter": ".training",
    "train_gate": ".training",
    "write_lora": ".files",
}

__all__ = [
    "AdapterPool",
    "AdapterRouter",
    "ArrowRouter",
    "Context",
    "GliderRouter",
    "Lora",
    "LoraPart",
    "MergedAdapters",
    "OracleAdapter",
    "PhatgooseRouter",
    "SingleAdapter",
    "best_single",
    "load_pool",
    "read_lora",
    "save_pool",
    "train_adapter",
    "train_gate",
    "write_lora",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
