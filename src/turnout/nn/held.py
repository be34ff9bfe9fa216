"""This module holds calls that belong to one model in memory: whoever pickles it learns what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Self, TypeVar

from turnout.core.errors import InputError, sentence

Part = TypeVar("Part")


class Holder(NamedTuple):
    """What put calls into a model, and what to do instead of pickling it."""

    what: str
    do: str
    by: str = "no copy or pickle"

    def refused(self) -> InputError:
        """Build the error for a model that is to be copied or pickled with what was put into it."""
        return InputError(sentence(f"{self.what}, which {self.by} can hold", do=self.do))


SWAP = Holder(
    "the gates of this model are swapped",
    "save the model with save_pretrained or its state_dict and the gates with GateSwap.save, or remove the "
    "swap first",
)
POOL = Holder(
    "the model holds an AdapterPool",
    "save the model with save_pretrained or its state_dict and the pool with save_pool, or close it first",
)
DEPTH = Holder(
    "RoutedDepth wraps the blocks of this model",
    "save the model with save_pretrained or its state_dict and the router with save_depth, or call unwrap "
    "first",
    by="no pickle",
)
HOOK = Holder("a GateHook is at work in this model", "save or copy it outside of the `with` block")


class Held:
    """A call for a hook of a model; pickling the model, as `torch.save(model)` does, is refused.

    A function inside a function can't be pickled either, but what pickle says of it names no way out.
    """

    def __init__(self, call: Callable[..., Any], holder: Holder) -> None:
        self._call, self._holder = call, holder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the call returns."""
        return self._call(*args, **kwargs)

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself, as a function does."""
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse."""
        raise self._holder.refused()


def copied(part: Part, memo: dict[int, Any]) -> Part:
    """Return what `copy.deepcopy` makes of an object; for one that refuses to be pickled."""
    twin: Part = object.__new__(type(part))
    memo[id(part)] = twin
    vars(twin).update(copy.deepcopy(vars(part), memo))
    return twin
