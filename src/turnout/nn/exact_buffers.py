"""This module keeps buffers in the precision that they were made in, whatever becomes of their module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose buffers of `exact_buffer` are converted neither with it nor in loading.

    `half()`, `to(torch.bfloat16)` and a checkpoint of half precision leave them their type. What gathers
    small steps needs it: 8 bits hold no step below 1/256 of the sum, and half precision no count above
    65,504.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, torch.dtype] = {}

    def exact_buffer(self, name: str, value: Tensor) -> None:
        """Register a buffer that keeps the type of `value`."""
        self.register_buffer(name, value)
        self._exact[name] = value.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: self._buffers[name] for name in self._exact}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, dtype in self._exact.items():
            value, now = before[name], self._buffers[name]
            if value is not None and now is not None and now.dtype != dtype:
                self._buffers[name] = value.to(device=now.device, dtype=dtype)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # With `assign=True` a tensor of the checkpoint is the buffer from then on.
        for name, dtype in self._exact.items():
            value = self._buffers[name]
            if value is not None and value.dtype != dtype:
                self._buffers[name] = value.to(dtype)
