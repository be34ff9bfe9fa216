from __future__ import annotations

import pytest

from turnout.core import Goal, InputError, LeakageError
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
