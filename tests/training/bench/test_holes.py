"""A table that is half empty is judged by what stands in for its holes, close to what the full one says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from turnout.core.errors import TableError
from turnout.core.outcomes import OutcomeTable
from turnout.datasets import load
from turnout.evaluation import dense_part
from turnout.training.bench.cell import run_cell
from turnout.training.bench.contestants import fit_contestant
from turnout.training.bench.holes import comparable
from turnout.training.bench.prepared import prepare, read_prepared
from turnout.training.bench.summary import to_text


@cache
def full_table() -> OutcomeTable:
    """Return a third of a bundled table."""
    table = load("open9")
    return table.where(np.arange(len(table.queries)) % 3 == 0).with_splits([None] * len(table.queries[::3]))


def half_empty() -> OutcomeTable:
    """Return it without half of its outcomes: the better candidates ran on hard tasks, the others on easy."""
    full = full_table()
    quality_QM, task_Q = full.quality_QM, np.array(full.tasks)
    ease_Q = np.array([quality_QM[task_Q == task].mean() for task in full.tasks])
    is_good_M = quality_QM.mean(axis=0) > np.median(quality_QM.mean(axis=0))
    is_hard_Q = ease_Q < np.median(ease_Q)
    chance_QM = np.where(is_hard_Q[:, None] == is_good_M[None, :], 0.75, 0.25)
    keep_QM = np.random.default_rng(0).random(quality_QM.shape) < chance_QM
    return full.with_rows(keep_QM[full.query_index, full.candidate_index])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("holes", half_empty(), tmp_path_factory.mktemp("sets"), seed=0)


def test_what_is_observed_misleads_and_what_stands_in_does_not(place: Path) -> None:
    given, full = read_prepared(place), full_table()
    with pytest.raises(TableError):
        dense_part(half_empty())
    assert 0.45 < given.test.observed_QM.mean() < 0.55
    assert given.test.names == full.names
    row_of = {query.id: row for row, query in enumerate(full.queries)}
    truth_QM = full.quality_QM[[row_of[query.id] for query in given.test.queries]]
    order = np.arange(len(truth_QM))
    misled = []
    for name in ("best_single", "group_mean", "uniform"):
        cell = run_cell(place, name, seed=0)
        decisions = fit_contestant(name, given, seed=0).decide(given.test.queries)
        choice_Q = np.array([given.test.names.index(chosen or "") for chosen in decisions.names_Q])
        truth = truth_QM[order, choice_Q].mean()
        assert cell["quality"]["low"] <= truth <= cell["quality"]["high"]
        assert abs(cell["quality"]["value"] - truth) < 0.06
        seen_Q = given.test.quality_QM[order, choice_Q]
        misled.append(abs(np.nanmean(seen_Q) - truth))
        assert cell["estimated"]["choices"] == pytest.approx(np.isnan(seen_Q).mean())
    assert max(misled) > 0.08
    title = to_text([run_cell(place, "uniform", seed=0)]).splitlines()[0]
    assert "of the cells were not observed and are estimated" in title


def test_best_single_and_oracle_are_those_of_the_full_table(place: Path) -> None:
    given, full = read_prepared(place), full_table()
    assert given.cells is not None
    row_of = {query.id: row for row, query in enumerate(full.queries)}
    truth_QM = full.quality_QM[[row_of[query.id] for query in given.test.queries]]
    cell = run_cell(place, "group_mean", seed=0)
    single = cell["quality"]["value"] - cell["against_best_single"]["value"]
    assert single == pytest.approx(truth_QM.mean(axis=0).max(), abs=0.06)
    # The best that was observed is far below; the outcomes weighed by their chance are far above.
    oracle = given.cells.hindsight_QM.max(axis=1).mean()
    assert oracle == pytest.approx(truth_QM.max(axis=1).mean(), abs=0.03)
    assert given.cells.quality_QM.max(axis=1).mean() > oracle + 0.1


def test_a_dense_part_that_holds_most_outcomes_is_judged_as_recorded(tmp_path: Path) -> None:
    full = full_table()
    few_N = (full.query_index % 50 != 0) | (full.candidate_index != 2)
    table = full.with_rows(few_N)
    assert comparable(table).fingerprint == dense_part(table).fingerprint
    place = prepare("dense", table, tmp_path, seed=0)
    assert read_prepared(place).cells is None
    assert run_cell(place, "uniform", seed=0)["estimated"] is None


def test_a_candidate_that_never_ran_on_some_task_is_left_out(tmp_path: Path) -> None:
    table = half_empty()
    name, is_off_Q = table.names[0], np.array(full_table().tasks) == "mmlu"
    assert 0.1 < is_off_Q.mean() < 0.9
    gone_N = (table.candidate_index == 0) & is_off_Q[table.query_index]
    given = read_prepared(prepare("off", table.with_rows(~gone_N), tmp_path, seed=0))
    assert set(given.test.names) == set(given.train.names) == set(table.names) - {name}


def test_candidates_that_share_no_task_cannot_be_compared(tmp_path: Path) -> None:
    full = full_table()
    tasks = list(dict.fromkeys(full.tasks))
    own_Q = np.array([tasks.index(task) for task in full.tasks]) % len(full.names)
    table = full.with_rows(own_Q[full.query_index] == full.candidate_index)
    with pytest.raises(TableError, match="no candidate can be judged"):
        prepare("apart", table, tmp_path, seed=0)
