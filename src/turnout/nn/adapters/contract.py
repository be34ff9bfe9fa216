"""This module states what a router of adapters does: per token and per module, it weighs the adapters.

Axes: B items of a batch, T tokens, D inputs of a module, E adapters of the pool, G width of a global vector.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence

if TYPE_CHECKING:
    from turnout.nn.adapters.linear import AdapterLinear


@dataclass(frozen=True, kw_only=True)
class Context:
    """What holds for a whole forward pass: the pool's adapters and what is known of the batch's items."""

    names: tuple[str, ...]
    """The adapters of the pool, in the order of axis E."""
    gated: frozenset[str] = frozenset()
    """Those whose gate was trained."""
    vectors_EG: Tensor | None = None
    """The adapters' global vectors, if each has one."""
    queries_BG: Tensor | None = None
    """The queries' global vectors, one an item of the batch."""
    tasks_B: tuple[str | None, ...] | None = None
    """The adapter each item asks for by name; None asks for the base."""
    copies: int = 1
    """How often `generate` repeats an item: for beams, or for several answers."""
    serials: tuple[int, ...] = ()
    """A number for each adapter that no other one has."""
    version: int = 0
    """Changes with everything that the pool holds."""

    def index(self, name: str) -> int:
        """Return the place of an adapter on axis E; raises `UnknownNameError`."""
        if name not in self.names:
            raise UnknownNameError(
                sentence(f"no adapter of the pool is called {name!r}", do=did_you_mean(name, self.names))
            )
        return self.names.index(name)

    def per_item(self, what: str, value_BX: Tensor, u: Tensor) -> Tensor:
        """Return what is known per item in the shape (B, 1, X), to stand beside the tokens of `u`.

        A single item serves any input. Raises `InputError` when the items and `u` do not agree, or when
        `u` has lost its batch axis (as inside experts) and there are several items; it says which.
        """
        if value_BX.shape[0] == 1:
            return value_BX.reshape(*([1] * (u.dim() - 1)), -1)
        repeated = value_BX.repeat_interleave(self.copies, dim=0)
        if u.dim() != 3 or u.shape[0] != repeated.shape[0]:
            raise InputError(
                sentence(
                    f"{what}: one for each item of the batch",
                    allowed=f"{value_BX.shape[0]} items, each {self.copies} times, of shape (B, T, D)",
                    got=tuple(u.shape),
                    do=_remedy(u, items=value_BX.shape[0], expected=repeated.shape[0]),
                )
            )
        return repeated[:, None, :]


def _remedy(u: Tensor, *, items: int, expected: int) -> str:
    """Return what to do about an input whose rows are not those of the batch's items."""
    if u.dim() != 3:
        return (
            "this module sees tokens without their items, as those inside experts do: "
            "give all items one adapter, or leave it out of the targets"
        )
    if u.shape[0] > items and u.shape[0] % items == 0:
        return "give `copies` when `generate` repeats items (the number of beams or of answers)"
    if u.shape[0] < expected:
        return (
            "name as many items as the batch has; where depth differs between sequences a block sees some "
            "of them: give all items one adapter, or one depth"
        )
    return "name as many items as the batch has"


class AdapterRouter(ABC):
    """A gate for adapters. An implementation is one file, stores its arguments and learns nothing itself."""

    @abstractmethod
    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return the weight of each adapter, (..., E), for a module's input `u`, (..., D).

        Each row sums to 1, or is 0 where no adapter is wanted. The leading axes are those of `u`, or 1
        where the weights do not depend on them.
        """

    def active(self, context: Context) -> tuple[int, ...] | None:
        """Return the only adapters whose weights can differ from 0, where that is known without the tokens.

        The others are then left out of the computation; None means that it depends on the tokens.
        """
        return None

    def config(self) -> dict[str, object]:
        """Return the constructor's arguments; each is stored under its own name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


Embed = Callable[[list[str]], object]
"""Turns texts into vectors, (texts, G), as an array or a tensor; from any encoder."""
