"""The uniform router knows what candidates cost and nothing of how good they are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import real_table
from turnout.routers import UniformRouter


def test_uniform_cannot_tell_candidates_apart_but_knows_what_they_cost() -> None:
    table = real_table()
    estimate = UniformRouter().fit(table).estimate(table.queries[:3])
    assert np.unique(estimate.quality_QM).size == 1
    assert estimate.quality_QM[0, 0] == pytest.approx(table.quality_QM.mean())
    np.testing.assert_allclose(estimate.spread_QM, table.quality_QM.mean(axis=0).std())
    np.testing.assert_allclose(estimate.cost_usd_QM[0], table.cost_usd_QM.mean(axis=0))
