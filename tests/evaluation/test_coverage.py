from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import make_table
from turnout.core import TableError
from turnout.evaluation import dense_part
from turnout.evaluation.cells import recorded
from turnout.evaluation.coverage import find_coverage

NAN = float("nan")


def test_a_query_counts_only_where_everything_compared_was_observed() -> None:
    table = make_table([[1.0, NAN], [1.0, 0.0], [NAN, 0.0], [1.0, 1.0]], np.full((4, 2), 1e-3))
    found = find_coverage(table, np.array([[0, 1], [0, 1], [0, 0], [0, -1]]), recorded(table))
    assert found.keep_Q.tolist() == [False, True, False, True]
    assert (found.num_scored, found.dropped_quality, found.dropped_cost) == (2, 2, 0)
    assert found.dropped_share == 0.5


def test_an_unknown_cost_drops_a_query_while_most_costs_are_known() -> None:
    table = make_table([[1.0]] * 4, [[1e-3], [NAN], [1e-3], [1e-3]])
    found = find_coverage(table, np.zeros((4, 1), np.int64), recorded(table))
    assert found.has_costs
    assert found.keep_Q.tolist() == [True, False, True, True]
    assert found.dropped_cost == 1


def test_money_is_left_out_where_most_costs_are_unknown() -> None:
    table = make_table([[1.0]] * 4, [[1e-3], [NAN], [NAN], [NAN]])
    found = find_coverage(table, np.zeros((4, 1), np.int64), recorded(table))
    assert not found.has_costs
    assert found.num_scored == 4
    assert "25%" in found.cost_note
    table = make_table([[1.0]])
    free = find_coverage(table, np.zeros((1, 1), np.int64), recorded(table))
    assert free.cost_note == "the table records no costs"


def test_nothing_in_common_is_an_error() -> None:
    table = make_table([[1.0, NAN], [NAN, 1.0]])
    with pytest.raises(TableError, match="dense_part"):
        find_coverage(table, np.array([[0, 1], [0, 1]]), recorded(table))


def test_the_dense_part_is_complete() -> None:
    quality = np.full((40, 3), 0.5)
    quality[0, 0] = NAN
    quality[:20, 2] = NAN
    dense = dense_part(make_table(quality))
    assert dense.names == ("m0", "m1")
    assert len(dense.queries) == 39
    assert dense.observed_QM.all()
    full = make_table(np.ones((3, 2)))
    assert dense_part(full).fingerprint == full.fingerprint


def test_no_dense_part_says_what_there_is() -> None:
    with pytest.raises(TableError, match="50%"):
        dense_part(make_table([[1.0, NAN], [NAN, 1.0]]))
