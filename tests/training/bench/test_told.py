"""Who knows the task of a held-out query says so, and nobody else is handed it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import real_table
from turnout.routers import GroupMeanRouter, InferredGroupRouter
from turnout.training.bench.cell import run_cell
from turnout.training.bench.contestants import METHODS, fit_contestant
from turnout.training.bench.fight import read_cell
from turnout.training.bench.prepared import prepare, read_prepared
from turnout.training.bench.summary import to_markdown, to_text
from turnout.training.bench.told import READERS, asked, is_told, said, told

TOLD = tuple(name for name in METHODS if is_told(name))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("small", real_table(), tmp_path_factory.mktemp("sets"), seed=0)


def test_inferring_is_measured_apart_from_being_told(place: Path) -> None:
    """The row of the router that infers is its work on text alone; the told one is the other."""
    given = read_prepared(place)
    cells = {name: run_cell(place, name, seed=0) for name in ("inferred_group", "inferred_group_told")}
    router = InferredGroupRouter(embedder=given.embedder).fit(given.train)
    for name, queries in (
        ("inferred_group", asked(given.test.queries, "inferred_group")),
        ("inferred_group_told", given.test.queries),
    ):
        choice_Q = router.estimate(queries).quality_QM.argmax(axis=1)
        truth = given.test.quality_QM[np.arange(choice_Q.size), choice_Q].mean()
        assert cells[name]["quality"]["value"] == pytest.approx(truth)
        assert cells[name]["told"] is (name == "inferred_group_told")
    assert cells["inferred_group"]["ece"] != cells["inferred_group_told"]["ece"]


def test_group_mean_is_always_told_and_marked(place: Path) -> None:
    given = read_prepared(place)
    cell = run_cell(place, "group_mean", seed=0)
    choice_Q = GroupMeanRouter().fit(given.train).estimate(given.test.queries).quality_QM.argmax(axis=1)
    assert cell["told"] is True
    assert cell["quality"]["value"] == pytest.approx(
        given.test.quality_QM[np.arange(choice_Q.size), choice_Q].mean()
    )
    both = [cell, run_cell(place, "uniform", seed=0)]
    assert "group_mean (told)" in to_text(both)
    assert "(told) knows the task of every held-out query" in to_text(both)
    assert "| `group_mean` (told) |" in "\n".join(to_markdown(both))
    assert "told" not in to_text(both[1:])


@pytest.mark.parametrize("name", ["group_mean", *READERS])
def test_who_reads_a_task_is_listed(place: Path, name: str) -> None:
    """These answer otherwise where the task is named, so that they stand in the table twice, or marked."""
    if name == "graph":
        pytest.importorskip("torch")
    given = read_prepared(place)
    contestant = fit_contestant(name, given, seed=0)
    hidden = [*asked(given.test.queries, "knn")]
    assert {query.task for query in hidden} == {None}
    named_QM = contestant.estimate(given.test.queries).quality_QM
    assert not np.array_equal(named_QM, contestant.estimate(hidden).quality_QM, equal_nan=True)
    assert is_told(name) or told(name) in METHODS


@pytest.mark.parametrize("name", ["avengers", "composition", "continual", "domain_experts", "knn", "ridge"])
def test_who_infers_a_domain_does_not_peep(place: Path, name: str) -> None:
    given = read_prepared(place)
    contestant = fit_contestant(name, given, seed=0)
    named_QM = contestant.estimate(given.test.queries).quality_QM
    assert np.array_equal(named_QM, contestant.estimate(asked(given.test.queries, name)).quality_QM)


def test_the_default_takes_part_with_and_without_the_tasks() -> None:
    assert METHODS[:2] == ("auto", "auto_told")
    assert set(TOLD) == {"group_mean", "auto_told", *map(told, READERS)}


def test_old_cells_are_named_by_what_they_knew() -> None:
    old = [{"set": "a", "method": name} for name in ("blend", "knn", "group_mean", "auto")]
    new = [{"set": "a", "method": "blend", "told": False}]
    assert [(cell["method"], cell["told"]) for cell in said([*old, *new])] == [
        ("blend_told", True),
        ("knn", False),
        ("group_mean", True),
        ("auto", False),
        ("blend", False),
    ]
    assert said(said(old)) == said(old)


def test_an_old_cell_of_a_reader_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    for name in ("blend", "knn"):
        (tmp_path / f"a--{name}.json").write_text(json.dumps({"method": name, "seed": 0}), encoding="utf-8")
    assert read_cell(tmp_path, Path("a"), "knn", seed=0) is not None
    assert read_cell(tmp_path, Path("a"), "blend", seed=0) is None
