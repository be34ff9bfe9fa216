from __future__ import annotations

import numpy as np
import pytest

from turnout.core import Goal, InputError, LeakageError, OutcomeTable
from turnout.datasets import synthetic
from turnout.training import study, train, train_and_test, unused_splits

WORLD = synthetic(num_queries=900, seed=7)
TRAIN, TEST = WORLD.table.select(split="train"), WORLD.table.select(split="test")


def test_the_report_has_the_deployment_knn_and_every_baseline() -> None:
    deployment = train(TRAIN, Goal(quality_floor=0.95), router="ridge")
    report = study(deployment, TRAIN, TEST, num_resamples=100)
    names = {row.name for row in report.rows}
    assert {"router", "knn", "group mean", "random", "best single", "oracle"} <= names
    oracle, router = report["oracle"].quality.value, report["router"].quality.value
    assert oracle is not None
    assert router is not None
    assert oracle >= router
    assert report["router"].curve is not None


def test_texts_on_both_sides_fail_loudly() -> None:
    deployment = train(TRAIN, Goal(), router="knn")
    with pytest.raises(LeakageError):
        study(deployment, TRAIN, TRAIN, num_resamples=50)


def test_held_out_rows_are_never_learned_from_unasked() -> None:
    for names in (["test"], ["test", "dev"], ["test", None]):
        table = TEST.with_splits([names[row % len(names)] for row in range(len(TEST.queries))])
        with pytest.raises(InputError, match=r"'test' and none that is called 'train'; .*--resplit"):
            train_and_test(table)
        parts = train_and_test(table, resplit=True)
        assert sum(len(part.queries) for part in parts) == len(table.queries)


def test_splits_that_are_passed_over_are_said() -> None:
    def of(*names: str | None) -> str | None:
        return unused_splits(TEST.with_splits([names[row % len(names)] for row in range(len(TEST.queries))]))

    assert of(None) is of("train", "test") is None
    assert of("train") == of("train", None)
    assert str(of("train")).startswith("the table has a split 'train' and none called 'test'")
    assert of("train", "test", "dev") == "rows of the split 'dev' are not used"
    assert of("trian") == (
        "the table's own split 'trian' is not known and ignored: the whole table is cut 70/30"
    )
    dev = TEST.with_splits(["dev"] * len(TEST.queries))
    assert unused_splits(dev, resplit=True) is None
    assert unused_splits(dev, train="dev") is None


def holed(table: OutcomeTable, seed: int) -> OutcomeTable:
    """Return the table without half of its outcomes: each candidate kept those of other tasks."""
    tasks = sorted({str(task) for task in table.tasks})
    task_Q = np.array([tasks.index(str(task)) for task in table.tasks])
    is_near_QM = (task_Q[:, None] + np.arange(len(table.candidates))) % 2 == 0
    keep_QM = np.random.default_rng(seed).random(is_near_QM.shape) < np.where(is_near_QM, 0.75, 0.25)
    return table.with_rows(keep_QM[table.query_index, table.candidate_index])


def test_a_half_empty_table_is_reported_on_every_query_close_to_what_the_full_one_says() -> None:
    train_half, test_half = holed(TRAIN, 1), holed(TEST, 2)
    assert test_half.observed_QM.all(axis=1).mean() < 0.2
    deployment = train(train_half, Goal(), router="ridge")
    found = study(deployment, train_half, test_half, num_prices=12, num_resamples=200)
    true = study(deployment, TRAIN, TEST, num_prices=12, num_resamples=200)
    origin = found.origin
    assert origin.num_scored > 0.95 * origin.num_queries
    assert origin.observed_cells == int(test_half.observed_QM.sum())
    assert origin.is_filled
    assert not true.origin.is_filled
    # What decided alike is the same number.
    assert found["router"].shares == true["router"].shares
    for name in ("router", "random", *(["best single"] if found.best_single == true.best_single else [])):
        value, truth = found[name].quality, true[name].quality.value
        assert value.low is not None
        assert value.high is not None
        assert truth is not None
        assert value.low - 0.01 < truth < value.high + 0.01
    text = " ".join(found.to_text(width=200).split())
    assert f"({origin.observed_cells:,} of {origin.num_cells:,} were)" in text
    assert "an estimate stands in for them" in text
    assert "does not depend on how good the answer was, beyond what text and task say" in text


def test_a_table_with_a_few_holes_is_reported_as_recorded() -> None:
    part = TEST.with_rows(np.arange(TEST.num_rows) % 197 != 0)
    assert 0.95 < part.observed_QM.all(axis=1).mean() < 1.0
    deployment = train(TRAIN, Goal(), router="knn")
    report = study(deployment, TRAIN, part, num_prices=5, num_resamples=20)
    assert not report.origin.is_filled
    assert report.origin.observed_cells <= report.origin.num_cells
