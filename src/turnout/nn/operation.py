"""This module tells torch of operations, so that they can be counted, traced and compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_library: Any = torch.library.Library("turnout", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(schema: str, run: Callable[..., Any], outputs: Callable[..., Any]) -> Any:
    """Define `turnout::NAME(...) -> ...` and return it; `outputs` makes tensors of the result's shapes.

    It runs with the device of its first tensor on CUDA as the current one, where Triton launches. Not by
    `torch.library.custom_op`, which does more on the processor than the kernels take that this is for.
    Gradients are not known: call it within a `torch.autograd.Function`.
    """
    name = schema.partition("(")[0]

    @functools.wraps(run)
    def there(*args: Any) -> Any:
        with current(*args):
            return run(*args)

    _library.define(schema)
    _library.impl(name, there, "CompositeExplicitAutograd")
    torch.library.register_fake(f"turnout::{name}", outputs, lib=_library)
    return getattr(torch.ops.turnout, name)


def current(*args: object) -> AbstractContextManager[object]:
    """Return a block in which the device of the first tensor on CUDA is the current one.

    torch's own operations see to it themselves; a Triton kernel is launched where the process stands.
    """
    first = next((arg for arg in args if isinstance(arg, Tensor) and arg.is_cuda), None)
    return nullcontext() if first is None else torch.cuda.device(first.device)
