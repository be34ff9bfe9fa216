"""Numbers are found where a search finds them, however many share a place."""

from __future__ import annotations

import numpy as np
import pytest

from turnout.features.pair_index import PairIndex


@pytest.mark.parametrize("num", [0, 1, 2, 17, 3_000])
@pytest.mark.parametrize("high", [5_000, 2**62])
def test_each_number_is_found_at_its_place_and_no_other_is(num: int, high: int) -> None:
    rng = np.random.default_rng(num)
    keys = np.unique(rng.integers(0, high, num))
    wanted = rng.permutation(np.concatenate([keys, rng.integers(0, high, 2_000), keys + 1, [0]]))
    place, is_there = PairIndex(keys).find(wanted)
    np.testing.assert_array_equal(is_there, np.isin(wanted, keys))
    np.testing.assert_array_equal(place[is_there], keys.searchsorted(wanted[is_there]))


def test_numbers_that_share_places_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.arange(1_000, dtype=np.int64) * 7
    monkeypatch.setattr(PairIndex, "_slots", lambda index, numbers: numbers % 3)
    index = PairIndex(keys)
    assert index._rest_places.size == 997
    place, is_there = index.find(np.arange(7_000, dtype=np.int64))
    assert is_there.sum() == 1_000
    np.testing.assert_array_equal(place[::7], np.arange(1_000))


def test_few_share_a_place() -> None:
    keys = np.unique(np.random.default_rng(0).integers(0, 8_000 * 8_001, 30_000))
    assert PairIndex(keys)._rest_places.size < 0.08 * keys.size
    regular = np.arange(30_000, dtype=np.int64) * 8_001 + 5
    assert PairIndex(regular)._rest_places.size < 0.08 * regular.size
