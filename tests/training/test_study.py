from __future__ import annotations

import pytest

from turnout.core import Goal, LeakageError
from turnout.datasets import synthetic
from turnout.training import study, train

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
