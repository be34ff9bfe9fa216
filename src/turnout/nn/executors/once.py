"""This module keeps a second derivative from being taken for nothing where only the first one is known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence

Backward = Callable[..., Any]


def once(backward: Backward) -> Backward:
    """Make a `backward` whose gradients refuse to be differentiated, with an `InputError`.

    `torch.autograd.function.once_differentiable` does so only where what comes in has a gradient, and that of
    a plain sum has none: a penalty on a gradient would then add nothing, without a word.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *grads: Tensor) -> Any:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        given = [one for one in (*ctx.saved_tensors, *grads) if one is not None and one.requires_grad]
        many = found if isinstance(found, tuple) else (found,)
        apply: Callable[..., Tensor] = _FirstOnly.apply
        marked = tuple(None if one is None else apply(one, *given) for one in many)
        return marked if isinstance(found, tuple) else marked[0]

    return refusing


class _FirstOnly(torch.autograd.Function):
    """Hands a gradient on, with what it was made of in its graph: whoever goes back there is told."""

    @staticmethod
    def forward(_ctx: Any, grad: Tensor, *_given: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(_ctx: Any, *_grads: Tensor) -> NoReturn:
        what = (
            "a gradient of experts was differentiated: their fast executors know the first derivative alone"
        )
        raise InputError(sentence(what, do="run them with make_executor('loop')"))
