"""The shared ground: strangers have no column, order does not matter, costs are right on average."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routers.tables import holed_table, real_table, shuffled, with_stranger
from turnout.checks.fixtures import LetterCounts
from turnout.core.errors import InputError
from turnout.routers.charges import charges_from, fit_charges
from turnout.routers.ground import ground_from, learn_ground, read_probe
from turnout.routers.targets import read_targets


def test_the_lesson_is_the_same_whatever_the_order_of_the_table() -> None:
    _, one = learn_ground(holed_table(), LetterCounts())
    _, two = learn_ground(with_stranger(shuffled(holed_table(), seed=3)), LetterCounts())
    assert one.names == two.names == tuple(sorted(one.names))
    np.testing.assert_array_equal(one.x_NF, two.x_NF)
    np.testing.assert_array_equal(one.targets.quality_QM, two.targets.quality_QM)
    np.testing.assert_array_equal(one.targets.cost_usd_QM, two.targets.cost_usd_QM)


def test_learned_columns_go_to_their_candidates_and_a_stranger_gets_none() -> None:
    table = with_stranger(holed_table())
    ground, lesson = learn_ground(table, LetterCounts())
    number_M = np.arange(len(lesson.names)) / 10.0
    asked = table.queries[:3]
    tiled_QM = np.tile(number_M, (3, 1))
    estimate = ground.estimate(asked, tiled_QM, np.ones(tiled_QM.shape), x_QF=ground.embed(asked))
    for name, value in zip(lesson.names, number_M, strict=True):
        np.testing.assert_array_equal(estimate.quality_QM[:, estimate.names.index(name)], value)
    assert np.isnan(estimate.quality_QM[:, -1]).all()
    assert np.isposinf(estimate.spread_QM[:, -1]).all()


def test_mean_costs_are_predicted_exactly() -> None:
    queries, targets = read_targets(holed_table())
    charges, over = fit_charges(queries, targets)
    predicted_NM = charges.lines(queries) * charges.ratio
    seen_NM = np.isfinite(targets.cost_usd_QM)
    for m, seen in enumerate(seen_NM.T):
        truth = targets.cost_usd_QM[seen, m]
        np.testing.assert_allclose(predicted_NM[seen, m].mean(), truth.mean(), rtol=1e-12)
        np.testing.assert_allclose(over.cost_usd_QM[seen, m] * charges.lines(queries)[seen, m], truth)
    again = charges_from(charges.arrays())
    np.testing.assert_array_equal(again.lines(queries) * again.ratio, predicted_NM)


def test_a_newcomer_is_read_by_its_own_rows_and_takes_the_next_column() -> None:
    table = real_table()
    newcomer = table.candidates[0]
    ground, lesson = learn_ground(table.select(candidates=list(table.names[1:])), LetterCounts())
    probe = table.with_rows(table.query_index % 5 == 0)
    added = read_probe(ground, newcomer, probe)
    grown = ground.with_added(newcomer, added)
    assert added.names == (newcomer.name,)
    assert added.targets.quality_QM.shape == (len(added.queries), 1)
    assert grown.place.tolist() == [*ground.place.tolist(), len(lesson.names)]
    state = grown.state(None, {"mine": np.ones(2)})
    again = ground_from(state, None)
    assert again.candidates == grown.candidates
    np.testing.assert_array_equal(state.arrays["mine"], 1.0)
    with pytest.raises(InputError, match="already in the pool"):
        read_probe(ground, table.candidates[1], table)
