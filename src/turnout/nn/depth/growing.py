"""This module appends keys and values in place, where the library copies the whole cache at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

GROWS_FROM = 2**15
"""Numbers in the keys from which on room is kept; below, copying them costs less than writing into a part."""

SPARE = 4
"""One part in so many of the length is kept as room for further tokens."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A `DynamicLayer` whose keys and values are the filled part of a larger tensor, once they are large.

    A step of one token then writes one token. What reorders, crops or selects them replaces them by tensors
    of its own; the next token makes new room. With gradients they are copied, as the library does.
    """

    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self._rooms: tuple[Tensor, Tensor] | None = None
        self._filled: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append, and return all keys and values."""
        is_first = not self.is_initialized
        if is_first:
            self.lazy_initialization(key_states, value_states)
        if is_first or torch.is_grad_enabled() or self.keys.numel() < GROWS_FROM:
            self.keys = torch.cat([self.keys, key_states], dim=-2)
            self.values = torch.cat([self.values, value_states], dim=-2)
            return self.keys, self.values
        length, tokens = self.keys.shape[-2], key_states.shape[-2]
        rooms = self._rooms_for(length + tokens)
        for room, new in zip(rooms, (key_states, value_states), strict=True):
            room.narrow(-2, length, tokens).copy_(new)
        filled = (rooms[0].narrow(-2, 0, length + tokens), rooms[1].narrow(-2, 0, length + tokens))
        self.keys, self.values = self._filled = filled
        return filled

    def _rooms_for(self, length: int) -> tuple[Tensor, Tensor]:
        rooms, filled = self._rooms, self._filled
        # Identity, since only what this layer filled last is known to lie in its room.
        if rooms is not None and filled is not None and filled[0] is self.keys and filled[1] is self.values:
            is_writable = torch.is_inference_mode_enabled() or not rooms[0].is_inference()
            if is_writable and length <= rooms[0].shape[-2]:
                return rooms
        self._rooms = rooms = (_with_room(self.keys, length), _with_room(self.values, length))
        return rooms


def _with_room(states_BHTD: Tensor, length: int) -> Tensor:
    batch, heads, filled, width = states_BHTD.shape
    room_BHTD = states_BHTD.new_empty(batch, heads, length + length // SPARE + 1, width)
    room_BHTD.narrow(-2, 0, filled).copy_(states_BHTD)
    return room_BHTD
