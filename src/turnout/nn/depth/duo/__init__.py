"""Big, small or no feed-forward for this token: modules, oracles and routers of Duo-LLM (S22).

`DuoModel` wraps a decoder; `train_modules` (random routing), `exhaustive`, `best_of` and `greedy` (oracles
over any loss function), `train_routers` (a global budget); `save` and `load` keep all of it beside the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from turnout.nn.depth.duo.choices import BIG, SKIP, SMALL
    from turnout.nn.depth.duo.model import DuoModel
    from turnout.nn.depth.duo.oracle_exhaustive import exhaustive
    from turnout.nn.depth.duo.oracle_fixed import best_fixed
    from turnout.nn.depth.duo.oracle_greedy import greedy
    from turnout.nn.depth.duo.oracle_random import best_of
    from turnout.nn.depth.duo.problem import Oracle, Problem
    from turnout.nn.depth.duo.router import DuoRouter
    from turnout.nn.depth.duo.sequences import SequenceLoss
    from turnout.nn.depth.duo.storing import load, save
    from turnout.nn.depth.duo.tokens import TokenLoss
    from turnout.nn.depth.duo.training import calibrate, train_modules, train_routers

_LAZY = {
    "BIG": ".choices",
    "DuoModel": ".model",
    "DuoRouter": ".router",
    "Oracle": ".problem",
    "Problem": ".problem",
    "SKIP": ".choices",
    "SMALL": ".choices",
    "SequenceLoss": ".sequences",
    "TokenLoss": ".tokens",
    "best_fixed": ".oracle_fixed",
    "best_of": ".oracle_random",
    "calibrate": ".training",
    "exhaustive": ".oracle_exhaustive",
    "greedy": ".oracle_greedy",
    "load": ".storing",
    "save": ".storing",
    "train_modules": ".training",
    "train_routers": ".training",
}

__all__ = [
    "BIG",
    "SKIP",
    "SMALL",
    "DuoModel",
    "DuoRouter",
    "Oracle",
    "Problem",
    "SequenceLoss",
    "TokenLoss",
    "best_fixed",
    "best_of",
    "calibrate",
    "exhaustive",
    "greedy",
    "load",
    "save",
    "train_modules",
    "train_routers",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
