"""This module tells a forward pass from one that the backward pass computes again, and which one that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence

What = TypeVar("What")

# None in a release of torch that does not tell.
_TOP_HOOKS = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)

MOST = 32
"""So many passes may wait for their backward pass."""

SUMS = 4
"""So many weighted sums of each row a pass is known again by."""


def is_computed_again() -> bool:
    """Return whether a backward pass runs, which computes layers again under activation checkpointing."""
    # What torch's own checkpointing asks.
    return torch._C._current_graph_task_id() != -1


def may_be_computed_again() -> bool:
    """Return whether this looks like activation checkpointing: no graph, or hooks on what is saved."""
    return not torch.is_grad_enabled() or _TOP_HOOKS is None or _has_hooks()


class _Pass(NamedTuple, Generic[What]):
    sums_TR: Tensor
    has_graph: bool
    what: What


class Passes(Generic[What]):
    """What belongs to each pass of a layer, to be found by the pass that computes it again.

    Backward passes come in any order, and some never: two losses, a reference that learns nothing between
    two passes. What is computed again has the same states as before, so that it is known by them, all of
    them: passes may begin alike, with one prompt or one token in front.
    """

    def __init__(self) -> None:
        self._waiting: list[_Pass[What]] = []

    def note(self, x_TD: Tensor, what: What) -> None:
        """Keep what belongs to a pass with these states."""
        self._waiting.append(_Pass(_sums(x_TD), torch.is_grad_enabled(), what))
        del self._waiting[:-MOST]

    def take(self, x_TD: Tensor, is_same: Callable[[What, What], bool]) -> What | None:
        """Return, and forget, what belongs to the pass with these states, or None.

        Raises `InputError` where passes with the same states wait to which not the same belongs.
        """
        near = [index for index, known in enumerate(self._waiting) if known.sums_TR.shape[0] == x_TD.shape[0]]
        # Reentrant checkpointing computes first without a graph and again without hooks, the other with both.
        kind = _has_hooks()
        near = [index for index in near if self._waiting[index].has_graph == kind] or near
        if not near:
            return None
        if len(near) > 1:
            near = self._alike(near, _sums(x_TD))
        if not all(is_same(self._waiting[near[-1]].what, self._waiting[index].what) for index in near[:-1]):
            raise _not_to_tell()
        return self._waiting.pop(near[-1]).what

    def _alike(self, near: list[int], sums_TR: Tensor) -> list[int]:
        # Nearest and not equal: sums on a GPU may differ in their last digits.
        off = torch.stack([(self._waiting[index].sums_TR - sums_TR).abs().sum() for index in near])
        found: list[float] = off.nan_to_num(torch.inf).tolist()
        least = min(found)
        return (
            [index for index, of in zip(near, found, strict=True) if of == least]
            if least < torch.inf
            else near[-1:]
        )


def _not_to_tell() -> InputError:
    what = "activation checkpointing: two passes of the same states wait, and which one is computed again"
    do = "run the backward pass of one before the other's forward pass, or both without checkpointing"
    allowed = "passes of other states, or for which the same was kept"
    return InputError(sentence(what, allowed=allowed, got="not to be told", do=do))


def _has_hooks() -> bool:
    return _TOP_HOOKS is not None and _TOP_HOOKS(True) is not None


def _sums(x_TD: Tensor) -> Tensor:
    """Return weighted sums of every row (T, R), in which passes differ that differ in any number."""
    count = x_TD.shape[1] * SUMS
    # No weight is another's multiple; a generator's would be made anew on every device.
    weights_DR = torch.arange(1, count + 1, device=x_TD.device).mul(0.7548776662).cos().view(-1, SUMS)
    with torch.no_grad():
        return (x_TD.detach() @ weights_DR.to(x_TD.dtype)).float()
