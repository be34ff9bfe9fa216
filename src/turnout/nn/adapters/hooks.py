"""This module hands on the hooks of a module that stood in for another, when that one comes back."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

HOOKS = tuple(name for name, kept in vars(nn.Module()).items() if "_hooks" in name and isinstance(kept, dict))
"""Where a module of torch keeps its hooks, and what is noted of them."""


def hand_over(stand_in: nn.Module, base: nn.Module, handles: Iterable[RemovableHandle]) -> None:
    """Put the hooks of `stand_in` on `base`, after its own; `handles` then take them off there.

    Hooks have numbers that are given once, so that those of two modules do not collide.
    """
    old, new = vars(stand_in), vars(base)
    homes: dict[int, Any] = {}
    for name in HOOKS:
        new[name].update(old[name])
        homes[id(old[name])] = new[name]
    if old["_is_full_backward_hook"] is not None:
        new["_is_full_backward_hook"] = old["_is_full_backward_hook"]
    for handle in handles:
        handle.hooks_dict_ref = _home(handle.hooks_dict_ref, homes)
        handle.extra_dict_ref = tuple(_home(held, homes) for held in handle.extra_dict_ref)


def _home(held: weakref.ref[Any], homes: dict[int, Any]) -> weakref.ref[Any]:
    home = homes.get(id(held()))
    return held if home is None else weakref.ref(home)
