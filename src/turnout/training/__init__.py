"""What shall we deploy?

Contract: `train(table, goal) -> Deployment`: fit, select, calibrate, guard, certificate.
Imports: core, features, routers, policies, evaluation.
"""

from __future__ import annotations

from turnout.training.auto import Auto, learn_auto
from turnout.training.learned import AUTO, Shares
from turnout.training.relearn import retrain
from turnout.training.select import select_router
from turnout.training.study import study, train_and_test, unused_splits
from turnout.training.train import train

__all__ = [
    "AUTO",
    "Auto",
    "Shares",
    "learn_auto",
    "retrain",
    "select_router",
    "study",
    "train",
    "train_and_test",
    "unused_splits",
]
