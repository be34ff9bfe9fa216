"""This module keeps a second derivative from being taken for nothing where only the first one is known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence

Backward = Callable[..., Any]


def _differentiated() -> InputError:
    what = "a gradient of experts was differentiated: their fast executors know the first derivative alone"
    return InputError(sentence(what, do="run them with make_executor('loop')"))


def once(backward: Backward, error: Callable[[], InputError] = _differentiated) -> Backward:
    """Make a `backward` whose gradients refuse to be differentiated, with an `InputError`, that of experts.

    `torch.autograd.function.once_differentiable` does so only where what comes in has a gradient, and that of
    a plain sum has none: a penalty on a gradient would then add nothing, without a word.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *grads: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        # Read once: activation checkpointing makes what was kept again, and only once.
        kept = ctx.saved_tensors
        with torch.no_grad():
            found = backward(_Read(ctx, kept), *grads)
        given = [one for one in (*kept, *grads) if one is not None and one.requires_grad]
        many = found if isinstance(found, tuple) else (found,)
        apply: Callable[..., Tensor] = _FirstOnly.apply
        marked = tuple(None if one is None else apply(one, error, *given) for one in many)
        return marked if isinstance(found, tuple) else marked[0]

    return refusing


class _Read:
    """A context whose tensors have been read."""

    def __init__(self, ctx: Any, saved_tensors: tuple[Tensor, ...]) -> None:
        self._ctx, self.saved_tensors = ctx, saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


class _FirstOnly(torch.autograd.Function):
    """Hands a gradient on, with what it was made of in its graph: whoever goes back there is told."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, error: Callable[[], InputError], *_given: Tensor) -> Tensor:
        ctx.error = error
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor) -> NoReturn:
        raise ctx.error()
