"""This module finds numbers among many: by one look at where a number was put, not by a search.

A search among thirty thousand sorted numbers takes fifteen steps, each of which waits for memory. Here a
number stands in a table at the place that the first bits of its product with a fixed odd number give. Those
whose place was taken, one in twenty, are searched for.
"""

from __future__ import annotations

from typing import final

import numpy as np

from turnout.features.vocabulary import Ints

_FACTOR = np.int64(-7046029254386353131)
"""2**64 over the golden ratio, as a signed number."""
_ROOM = 8
"""Places for each number, at least."""
_NOBODY = np.iinfo(np.int64).max
"""No number that is looked for."""


@final
class PairIndex:
    """The places of numbers in a list.

    Parameters
    ----------
    keys:
        The list, ascending and each once, of shape (N,); all of at least 0 and less than 2**63 - 1.
    """

    __slots__ = ("_keys", "_places", "_rest", "_rest_places", "_shift")

    def __init__(self, keys: Ints) -> None:
        bits = (max(keys.size, 1) * _ROOM - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._keys = np.append(keys, _NOBODY)
        self._places = np.full(1 << bits, keys.size, np.int32)
        slot_N, order_N = self._slots(keys), np.arange(keys.size, dtype=np.int32)
        self._places[slot_N[::-1]] = order_N[::-1]  # the first of those that share a place stays there
        self._rest_places = (self._places[slot_N] != order_N).nonzero()[0]
        self._rest = np.append(keys[self._rest_places], _NOBODY)

    def find(self, wanted: Ints) -> tuple[Ints, np.ndarray]:
        """Return the place of each number in the list, and whether it is there; else it has none."""
        place = self._places.take(self._slots(wanted)).astype(np.int64)
        is_there = self._keys.take(place) == wanted
        if self._rest_places.size:
            open_ = (~is_there & (place < self._keys.size - 1)).nonzero()[0]
            at = self._rest.searchsorted(wanted.take(open_))
            is_rest = self._rest.take(at) == wanted.take(open_)
            found = open_[is_rest]
            place[found] = self._rest_places.take(at[is_rest])
            is_there[found] = True
        return place, is_there

    def _slots(self, keys: Ints) -> Ints:
        slots: Ints = ((keys * _FACTOR).view(np.uint64) >> self._shift).view(np.int64)
        return slots
