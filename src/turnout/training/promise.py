"""This module holds a deployment to its word on held-out queries, and says what the word was about."""

from __future__ import annotations

from collections.abc import Iterator

from turnout.core.budget import Goal
from turnout.core.outcomes import OutcomeTable
from turnout.evaluation import Report
from turnout.evaluation.report import Row
from turnout.evaluation.value import Value
from turnout.policies import Deployment

_MAX_TASKS = 5


def about_promise(
    deployment: Deployment, report: Report, train: OutcomeTable, test: OutcomeTable
) -> tuple[str, ...]:
    """Return sentences for the warnings of `report`; none for a deployment that promised nothing.

    One says that the promise is missed on the reported queries, by how much and how surely; one says which
    tasks of the training part are missing here and which are new, for a promise is about its own mix.
    """
    goal = deployment.goal
    if deployment.frontier is None or goal.fixed_price is not None or not deployment.plan().is_kept:
        return ()
    return (*_missed(goal, report["router"], report["best single"]), *_moved(train, test))


def _missed(goal: Goal, router: Row, single: Row) -> Iterator[str]:
    if goal.quality_floor is not None:
        best, share = single.quality.value, router.share
        if best is None or share.value is None or (share.value - goal.quality_floor) * best + goal.risk >= 0:
            return
        got = f"{share.value:.1%} of the best single model's quality {_interval(share, '.1%')}"
        promised = f"at least {goal.quality_floor:.1%}"
    else:
        usd, cap = router.usd_per_1k, goal.usd_per_1k or 0.0
        if usd is None or usd.value is None or usd.value <= cap * (1 + goal.risk):
            return
        got = f"{usd.value:.4g} usd per 1,000 requests {_interval(usd, '.4g')}"
        promised = f"at most {cap:g}"
    yield f"promise missed on these queries: {got}, where {promised} was promised"


def _interval(value: Value, spec: str) -> str:
    if value.low is None or value.high is None:
        return "(too few queries for an interval)"
    return f"[{value.low:{spec}}, {value.high:{spec}}]"


def _moved(train: OutcomeTable, test: OutcomeTable) -> Iterator[str]:
    learned, reported = set(train.tasks) - {None}, set(test.tasks) - {None}
    missing, new = sorted(map(str, learned - reported)), sorted(map(str, reported - learned))
    if not learned or not reported or not (missing or new):
        return
    parts = []
    if missing:
        share = sum(task in missing for task in train.tasks) / len(train.tasks)
        parts.append(f"{_listed(missing)} ({share:.0%} of the training queries) {_are(missing)} missing here")
    if new:
        share = sum(task in new for task in test.tasks) / len(test.tasks)
        parts.append(f"{_listed(new)} ({share:.0%} of the reported queries) {_are(new)} new")
    yield (
        "the promise is about queries like those it was calibrated on, and these are others: of the tasks, "
        + "; ".join(parts)
    )


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_TASKS
    return ", ".join(repr(name) for name in names[:_MAX_TASKS]) + (f" and {more} more" if more > 0 else "")
