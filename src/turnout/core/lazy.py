"""This module lets a room export names that load on first use, so that importing the room stays light."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from turnout.core.errors import did_you_mean


def lazy_exports(
    room: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a room (PEP 562).

    Parameters
    ----------
    room:
        The room's `__name__`. `dir(room)` lists its `__all__`.
    places:
        Public name -> "module", or "module:attribute" where the thing has another name there. A module that
        begins with a dot is the room's own.

    Example
    -------
    >>> load, _ = lazy_exports("collections", {"Iterable": ".abc", "Row": "types:SimpleNamespace"})
    >>> load("Row").__name__
    'SimpleNamespace'
    """

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}; {did_you_mean(name, places)}")
        module, _, attribute = places[name].partition(":")
        found = getattr(importlib.import_module(module, room), attribute or name)
        # From now on the name is an attribute like any other, and this function is not asked for it again.
        setattr(sys.modules[room], name, found)
        return found

    def __dir__() -> list[str]:
        return sorted(sys.modules[room].__all__)

    return __getattr__, __dir__
