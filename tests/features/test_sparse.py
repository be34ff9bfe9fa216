"""Sparse products and the randomised decomposition agree with dense numpy."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.features.sparse import Product, Rows, right_directions, rows_from


def draw(seed: int, shape: tuple[int, int], density: float = 0.3) -> tuple[Rows, np.ndarray]:
    """Return a random sparse matrix, and the same one dense."""
    rng = np.random.default_rng(seed)
    dense = (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)
    dense[shape[0] // 2] = 0.0
    row, column = np.nonzero(dense)
    return rows_from(row, column, dense[row, column], shape), dense


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (5, 30), (40, 3)])
def test_products_and_views_equal_the_dense_ones(shape: tuple[int, int]) -> None:
    rows, dense = draw(0, shape)
    right = np.random.default_rng(1).normal(size=(shape[1], 4)).astype(np.float32)
    np.testing.assert_allclose(rows.times(right), dense @ right, atol=1e-5)
    np.testing.assert_allclose(
        rows.transposed().times(np.eye(shape[0], dtype=np.float32)), dense.T, atol=1e-6
    )
    pick = np.arange(shape[0])[::-2]
    np.testing.assert_allclose(rows.take(pick).times(right), dense[pick] @ right, atol=1e-5)


def test_a_product_is_never_multiplied_out_but_equals_it() -> None:
    (left, left_dense), (right, right_dense) = draw(0, (6, 9)), draw(1, (9, 4))
    product = Product(left, right)
    eye = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(product.times(eye), left_dense @ right_dense, atol=1e-5)
    eye = np.eye(6, dtype=np.float32)
    np.testing.assert_allclose(product.transposed().times(eye), (left_dense @ right_dense).T, atol=1e-5)


def test_unit_rows_have_length_one_or_nothing() -> None:
    rows, dense = draw(3, (8, 6))
    lengths = np.linalg.norm(rows.unit_rows().times(np.eye(6, dtype=np.float32)), axis=1)
    np.testing.assert_allclose(lengths, (np.abs(dense).sum(axis=1) > 0).astype(float), atol=1e-6)


def test_empty_columns_can_be_left_out() -> None:
    rows, dense = draw(4, (5, 50), density=0.05)
    packed, used = rows.used_columns()
    np.testing.assert_array_equal(used, np.flatnonzero(np.abs(dense).sum(axis=0)))
    np.testing.assert_allclose(packed.times(np.eye(used.size, dtype=np.float32)), dense[:, used])


def test_the_leading_directions_are_those_of_the_exact_decomposition() -> None:
    rng = np.random.default_rng(5)
    low_rank = rng.normal(size=(60, 4)) @ np.diag([9.0, 5.0, 3.0, 2.0]) @ rng.normal(size=(4, 40))
    dense = low_rank.astype(np.float32)
    row, column = np.nonzero(dense)
    rows = rows_from(row, column, dense[row, column], dense.shape)
    right, sigma = right_directions(rows, num=6, num_powers=1, rng=np.random.default_rng(0))
    _, exact_sigma, exact_right = np.linalg.svd(dense)
    np.testing.assert_allclose(sigma, exact_sigma[:4], rtol=1e-4)
    np.testing.assert_allclose(np.abs(exact_right[:4] @ right), np.eye(4), atol=1e-3)


def test_an_empty_matrix_has_no_direction() -> None:
    nothing = rows_from(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), (3, 5))
    right, sigma = right_directions(nothing, num=2, num_powers=1, rng=np.random.default_rng(0))
    assert right.shape == (5, 0)
    assert sigma.size == 0
