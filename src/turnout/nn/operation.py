"""This module tells torch of operations, so that they can be counted, traced and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library: Any = torch.library.Library("turnout", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(schema: str, run: Callable[..., Any], outputs: Callable[..., Any]) -> Any:
    """Define `turnout::NAME(...) -> ...` and return it; `outputs` makes tensors of the result's shapes.

    Not by `torch.library.custom_op`, which does more on the processor than the kernels take that this is for.
    Gradients are not known: call it within a `torch.autograd.Function`.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"turnout::{name}", outputs, lib=_library)
    return getattr(torch.ops.turnout, name)
