"""Cells: every method on the same cut, one file each, gone on with after an interruption, here or on Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.routers.tables import real_table
from turnout.core import OutcomeTable, Query
from turnout.core.errors import InputError, UnknownNameError
from turnout.core.estimate import Estimate
from turnout.routers import BestSingleRouter, RidgeRouter
from turnout.training.bench import fight as fight_module
from turnout.training.bench.cell import run_cell
from turnout.training.bench.contestants import METHODS, Contestant, fit_contestant
from turnout.training.bench.fight import fight, read_cell
from turnout.training.bench.peers import fit_peer
from turnout.training.bench.prepared import Prepared, prepare, read_prepared
from turnout.training.bench.summary import completed, ranked, to_markdown, to_text

HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("small", real_table(), tmp_path_factory.mktemp("sets"), seed=0)


def test_a_cell_holds_every_number_and_is_the_same_again(place: Path) -> None:
    cell = run_cell(place, "ridge", seed=0)
    given = read_prepared(place)
    router = RidgeRouter(embedder=given.embedder).fit(given.train)
    choice_Q = router.estimate(given.test.queries).quality_QM.argmax(axis=1)
    truth = given.test.quality_QM[np.arange(choice_Q.size), choice_Q].mean()
    assert cell["quality"]["value"] == pytest.approx(truth)
    assert set(cell["dials"]) == {"0.25", "0.5", "1"}
    assert cell["fit_s"] > 0
    assert 0 < cell["p50_ms"] <= cell["p99_ms"]
    assert cell["peak_mb"] > 10
    assert cell["artifact_mb"] > 0
    assert 0 <= cell["ece"] <= 1
    again = run_cell(place, "ridge", seed=0)
    assert {k: cell[k] for k in ("quality", "aiq", "dials", "ece")} == {
        k: again[k] for k in ("quality", "aiq", "dials", "ece")
    }


def test_times_are_of_the_processor_so_that_waiting_does_not_count(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waiting:
        """Waits, as one does for a processor that others use."""

        def __init__(self, table: OutcomeTable) -> None:
            self.router = BestSingleRouter().fit(table)

        def estimate(self, queries: Sequence[Query]) -> Estimate:
            time.sleep(0.005)
            return self.router.estimate(queries)

    def slowly(name: str, given: Prepared, *, seed: int) -> Contestant:
        time.sleep(1.0)
        return Contestant(router=Waiting(given.train), saved=None)

    monkeypatch.setattr("turnout.training.bench.cell.fit_contestant", slowly)
    cell = run_cell(place, "best_single", seed=0)
    assert cell["fit_s"] < 0.9
    assert cell["p50_ms"] < 4.0


def test_the_curve_of_the_default_is_the_one_behind_its_guard(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turnout.policies import Guard
    from turnout.policies.guard import Verdict

    assert "error" not in run_cell(place, "auto", seed=0)
    shut = Verdict(is_open=False, gain=0.0, low=-1.0, unit="quality", count=9)
    monkeypatch.setattr(Guard, "judge", lambda self, goal, **given: shut)
    cell, single = (run_cell(place, name, seed=0) for name in ("auto", "best_single"))
    assert cell["quality"] == single["quality"]
    assert cell["dials"]["1"] >= single["quality"]["value"] - 1e-12
    test, known = read_prepared(place).test, []
    for share in ("0.25", "0.5", "1"):
        # Nothing but single models is deployed, so that nothing else stands on the curve.
        known += [abs(cell["dials"][share] - q) < 1e-9 for q in test.quality_QM.mean(axis=0)]
        assert any(known[-len(test.names) :])


def test_a_best_single_model_that_costs_nothing_is_free_and_not_never_reached(tmp_path: Path) -> None:
    table = real_table()
    free = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=table.quality,
        cost_usd=np.zeros(table.num_rows),
    )
    place = prepare("free", free, tmp_path, seed=0)
    for name in ("best_single", "ridge"):
        cell = run_cell(place, name, seed=0)
        assert cell["cost_at_best_single"]["is_free"]
        line = to_text([cell]).splitlines()[3]
        assert " free " in line
        assert "never" not in line


def test_what_has_not_run_is_a_row_that_says_why(place: Path) -> None:
    cells = completed([run_cell(place, "uniform", seed=0)], ("uniform", "graph", "rag"), {"rag": "it rains"})
    lines = list(to_markdown(cells))
    assert any(line.startswith("| `graph` | not run: no run of the recorded ones") for line in lines)
    assert any(line.startswith("| `rag` | not run: it rains |") for line in lines)
    assert sum(line.startswith("| `uniform` |") for line in lines) == 1


def test_the_best_single_model_is_itself(place: Path) -> None:
    cell = run_cell(place, "best_single", seed=0)
    assert cell["against_best_single"]["value"] == 0.0
    assert cell["oracle_share"]["value"] == 0.0
    assert cell["cost_at_best_single"]["value"] == pytest.approx(1.0)


def test_every_method_takes_part_and_who_cannot_says_why(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert METHODS[0] == "auto"
    assert {"knn", "blend", "sklearn_mlp"} <= set(METHODS)
    monkeypatch.setattr("turnout.training.bench.peers.PEERS", {"sklearn_knn": ("nowhere", "Nobody", {})})
    cell = run_cell(place, "sklearn_knn", seed=0)
    assert "pip install" in cell["error"]
    assert "could not run" in to_text([cell])
    with pytest.raises(UnknownNameError, match="nobody"):
        fit_contestant("nobody", read_prepared(place), seed=0)


@pytest.mark.skipif(not HAS_SKLEARN, reason="scikit-learn is not installed")
def test_a_peer_learns_from_the_same_vectors(place: Path) -> None:
    given = read_prepared(place)
    peer = fit_contestant("sklearn_ridge", given, seed=0).estimate(given.test.queries)
    mine = RidgeRouter(embedder=given.embedder).fit(given.train).estimate(given.test.queries)
    assert np.corrcoef(peer.quality_QM.ravel(), mine.quality_QM.ravel())[0, 1] > 0.9
    assert np.isfinite(peer.cost_usd_QM).all()


@pytest.mark.skipif(not HAS_SKLEARN, reason="scikit-learn is not installed")
def test_peers_that_predict_one_number_learn_each_candidate_from_what_was_observed() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.standard_normal((400, 3))
    right_N = (x_NF[:, 0] + 0.3 * rng.standard_normal(400) > 0).astype(float)
    quality_NM = np.stack([right_N, 1.0 - right_N, np.full(400, 0.25)], axis=1)
    quality_NM[:100, 0] = np.nan
    for name in ("sklearn_logistic", "sklearn_boosted"):
        found_QM = fit_peer(name, x_NF, quality_NM, seed=0)(np.array([[2.0, 0, 0], [-2.0, 0, 0]]))
        assert found_QM.argmax(axis=1).tolist() == [0, 1]
        np.testing.assert_allclose(found_QM[:, 2], 0.25, atol=1e-9)


def test_the_terminal_shows_one_line_a_method_and_marks_who_is_better(place: Path) -> None:
    cells = [run_cell(place, name, seed=0) for name in ("best_single", "uniform")]
    better = {**cells[0], "method": "great", "against_best_single": {"value": 0.1, "low": 0.05, "high": 0.2}}
    better = {**better, "quality": {"value": 1.0, "low": 1.0, "high": 1.0}}
    lines = to_text([*cells, better]).splitlines()
    assert lines[0].startswith("small:")
    assert [line[2:].split()[0] for line in lines[3:6]] == ["great", "best_single", "uniform"]
    assert [line[0] for line in lines[3:6]] == ["*", " ", " "]
    assert len({len(line) for line in lines[1:6]}) == 1


def test_an_interrupted_run_goes_on_where_it_stopped(place: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = fight(
        [place],
        ["best_single", "uniform"],
        tmp_path,
        about={"commit": "abc"},
        progress=lambda _, done, total: steps.append((done, total)),
    )
    assert steps == [(1, 2), (2, 2)]
    kept = (tmp_path / "small--uniform.json").stat().st_mtime_ns
    (tmp_path / "small--best_single.json").write_text("{", encoding="utf-8")
    assert read_cell(tmp_path, place, "best_single", seed=0) is None
    again = fight([place], ["best_single", "uniform"], tmp_path, about={"commit": "def"})
    assert [cell["commit"] for cell in again] == ["def", "abc"]
    assert (tmp_path / "small--uniform.json").stat().st_mtime_ns == kept
    assert [cell["quality"] for cell in again] == [cell["quality"] for cell in first]
    assert [cell["method"] for cell in ranked(again)] == ["best_single", "uniform"]
    assert sum("`" in line for line in to_markdown(again)) == 2
    assert read_cell(tmp_path, place, "uniform", seed=1) is None


def test_a_cell_that_breaks_or_whose_process_is_killed_says_so_and_the_others_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(place, broken)
    (broken / "about.json").unlink()
    shutil.rmtree(broken / "train")
    first, second = fight([broken, place], ["uniform"], tmp_path / "cells")
    assert first["set"] == "broken"
    assert first["error"]
    assert "quality" in second
    monkeypatch.setattr("turnout.training.bench.fight._send", _die)
    (killed,) = fight([place], ["knn"], tmp_path / "cells")
    assert killed["error"] == "its process ended with -9"
    assert read_cell(tmp_path / "cells", place, "knn", seed=0) is None


def test_a_cell_that_takes_too_long_says_so_and_can_be_tried_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("turnout.training.bench.fight._send", _send_never)
        (late,) = fight([place], ["avengers"], tmp_path, limit_s=1)
    assert late["error"] == "not done after 1 s of the processor"
    assert "not done after 1 s" in to_text([late])
    assert read_cell(tmp_path, place, "avengers", seed=0) is None
    (cell,) = fight([place], ["avengers"], tmp_path, limit_s=120)
    # The bound leaves the clock of decisions exact.
    assert 0.0 < cell["p50_ms"] <= cell["p99_ms"]
    with pytest.raises(InputError, match="limit_s"):
        fight([place], ["avengers"], tmp_path, limit_s=0)


def _send_never(*given: Any) -> None:
    """Send a cell whose work has no end, in the process that is given to it."""
    fight_module._work = _spin  # type: ignore[assignment]
    fight_module._send(*given)


def _spin(*_: object) -> None:
    while True:
        pass


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_memory_of_a_cell_is_its_own(place: Path, tmp_path: Path) -> None:
    ballast = np.ones(60_000_000)
    (cell,) = fight([place], ["uniform"], tmp_path)
    assert 10 < cell["peak_mb"] < ballast.nbytes / 1e6


def test_a_place_of_another_seed_is_refused(place: Path) -> None:
    known = json.loads((place / "about.json").read_text())
    assert known["seed"] == 0
    assert prepare("small", real_table(), place.parent, seed=0) == place
    with pytest.raises(InputError, match="another table or seed"):
        prepare("small", real_table(), place.parent, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_cells_run_on_a_real_local_ray(place: Path, tmp_path: Path) -> None:
    (cell,) = fight([place], ["uniform"], tmp_path, use_ray=True)
    assert cell["quality"] == run_cell(place, "uniform", seed=0)["quality"]
