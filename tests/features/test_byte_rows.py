"""Rows in bytes: what is lost, and that nothing more is lost the second time."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.features.byte_rows import from_bytes, to_bytes


@pytest.mark.parametrize("size", [1e-12, 1.0, 3e7])
def test_a_row_is_off_by_half_a_step_of_its_largest_entry_and_only_once(size: float) -> None:
    rng = np.random.default_rng(0)
    rows_VF = (rng.normal(size=(300, 24)) * size * 10.0 ** rng.uniform(-3, 3, (300, 1))).astype(np.float32)
    bytes_VF, scale_V = to_bytes(rows_VF)
    once_VF = from_bytes(bytes_VF, scale_V)
    step_V = np.abs(rows_VF).max(axis=1) / 127
    assert (np.abs(once_VF - rows_VF) <= 0.501 * step_V[:, None]).all()
    again, scale_again = to_bytes(once_VF)
    np.testing.assert_array_equal(again, bytes_VF)
    np.testing.assert_array_equal(scale_again, scale_V)


def test_rows_of_zeros_and_no_rows_stay() -> None:
    zeros = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(from_bytes(*to_bytes(zeros)), zeros)
    assert from_bytes(*to_bytes(zeros[:0])).shape == (0, 3)
