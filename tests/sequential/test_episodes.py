"""Single calls are what one asks everybody about everything."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sequential.scripted import small_table
from turnout.core import InputError
from turnout.sequential import ReplayEnvironment
from turnout.sequential.episodes import single_calls


def test_every_cell_is_asked_once() -> None:
    table = small_table()
    calls = single_calls(ReplayEnvironment(table, independent=True), table.queries)
    assert calls.names == ("small", "large")
    assert calls.quality_QM.tolist() == [[0, 1], [1, 1], [0, 0.5], [1, 0]]
    assert np.allclose(calls.usd_QM, [[0.01, 0.1], [0.01, 0.3], [0, 0.2], [0.01, 0]])
    assert calls.seen[3][1].error is not None


def test_names_and_queries_are_checked() -> None:
    world = ReplayEnvironment(small_table(), independent=True)
    with pytest.raises(InputError, match="huge"):
        single_calls(world, small_table().queries, ["huge"])
    with pytest.raises(InputError, match="no query"):
        single_calls(world, [])
