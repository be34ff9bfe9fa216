"""This module keeps learned rows in a byte a number, with a scale for each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from turnout.features.sparse import Array

_LARGEST = 127
_SCALE_BITS = 11
"""So many bits of a scale are kept, so that a byte times a scale is exact in single precision."""


def to_bytes(rows_VF: Array) -> tuple[NDArray[np.int8], Array]:
    """Return the rows in bytes (V, F) and their scales (V,): a row is its bytes times its scale.

    Rows that come from bytes give the same bytes and scales again.
    """
    largest_V = np.abs(rows_VF).max(axis=1, initial=0.0)
    mantissa_V, exponent_V = np.frexp(largest_V.astype(np.float64) / _LARGEST)
    mantissa_V = np.ceil(mantissa_V * 2**_SCALE_BITS) / 2**_SCALE_BITS
    scale_V = np.ldexp(mantissa_V, exponent_V).astype(np.float32)
    divisor_V = np.where(scale_V > 0.0, scale_V, np.float32(1.0))
    return np.rint(rows_VF / divisor_V[:, None]).astype(np.int8), scale_V


def from_bytes(bytes_VF: NDArray[np.int8], scale_V: Array) -> Array:
    """Return the rows (V, F) in single precision."""
    return bytes_VF.astype(np.float32) * np.asarray(scale_V, np.float32)[:, None]
