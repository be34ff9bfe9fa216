"""Composition under a budget stands beside the free one, and keeps to what it may spend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import real_table
from turnout.core import OutcomeTable
from turnout.routers import CompositionRouter
from turnout.training.bench.budgets import BUDGETED, SHARE
from turnout.training.bench.cell import run_cell
from turnout.training.bench.contestants import METHODS, fit_contestant
from turnout.training.bench.prepared import Prepared, prepare, read_prepared


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("small", real_table(), tmp_path_factory.mktemp("sets"), seed=0)


def fitted(name: str, given: Prepared) -> CompositionRouter:
    router = fit_contestant(name, given, seed=0).router
    assert isinstance(router, CompositionRouter)
    return router


def spent(map_: dict[str, str], table: OutcomeTable) -> float:
    """Return the mean recorded cost of a map on the tasks that are named."""
    column_Q = [table.names.index(map_[task or ""]) for task in table.tasks]
    return float(table.cost_usd_QM[np.arange(len(column_Q)), column_Q].mean())


def held(map_: dict[str, str], table: OutcomeTable) -> float:
    experts = [candidate for candidate in table.candidates if candidate.name in set(map_.values())]
    return sum(float(candidate.descriptors["params_b"]) for candidate in experts)


def test_half_the_money_is_kept_on_the_training_part_and_binds(place: Path) -> None:
    given = read_prepared(place)
    free, bound = fitted("composition", given), fitted("composition_half_usd", given)
    best = given.train.names[given.train.quality_QM.mean(axis=0).argmax()]
    single = spent(dict.fromkeys(free.map(), best), given.train)
    assert bound.budget_usd == pytest.approx(SHARE * single, rel=0.02)
    assert spent(bound.map(), given.train) <= SHARE * single * 1.05
    assert spent(free.map(), given.train) > SHARE * single


def test_half_the_parameters_are_kept_and_bind(place: Path) -> None:
    given = read_prepared(place)
    free, bound = fitted("composition", given), fitted("composition_half_params", given)
    assert bound.budget_params_b == pytest.approx(SHARE * held(free.map(), given.train))
    assert 0.0 < held(bound.map(), given.train) <= SHARE * held(free.map(), given.train)


def test_where_no_map_fits_half_the_money_the_row_says_so(tmp_path: Path) -> None:
    table = real_table()
    near = np.full(table.num_rows, 1e-3)
    flat = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=near,
    )
    cell = run_cell(prepare("near", flat, tmp_path, seed=0), "composition_half_usd", seed=0)
    assert cell["error"].startswith("no map of categories to experts fits half of what the best single model")
    assert "0.0005 usd a query" in cell["error"]


@pytest.mark.parametrize("name", list(BUDGETED))
def test_it_is_a_row_with_what_it_spent_that_is_not_told_the_task(place: Path, name: str) -> None:
    assert name in METHODS
    cell, given = run_cell(place, name, seed=0), read_prepared(place)
    choice_Q = (
        fitted(name, given)
        .estimate([replace(query, task=None) for query in given.test.queries])
        .quality_QM.argmax(axis=1)
    )
    rows, usd_QM = np.arange(choice_Q.size), given.test.cost_usd_QM
    best = given.train.quality_QM.mean(axis=0).argmax()
    assert cell["told"] is False
    assert cell["quality"]["value"] == pytest.approx(given.test.quality_QM[rows, choice_Q].mean())
    assert cell["spend"] == pytest.approx(usd_QM[rows, choice_Q].mean() / usd_QM[:, best].mean())


def test_without_costs_there_is_no_half_of_them_and_the_row_says_so(tmp_path: Path) -> None:
    free = real_table().with_costs(np.full(real_table().num_rows, np.nan))
    cell = run_cell(prepare("free", free, tmp_path, seed=0), "composition_half_usd", seed=0)
    assert "costs are unknown" in cell["error"]
