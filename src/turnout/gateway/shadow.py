"""This module lets a deployment decide beside the one that serves: in a thread, and calling nobody.

What it would have chosen goes into the ledger. What it raises is written down and goes no further, and where
decisions pile up, further ones are dropped. The thread shares the interpreter with the requests, so it rests
after each turn as long as that took: a request waits for one turn at most, and for none most of the time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.budget import Goal
from turnout.core.outcomes import Floats
from turnout.core.query import Query
from turnout.gateway.account import known
from turnout.gateway.ledger import Ledger
from turnout.gateway.schema import ShadowRow
from turnout.gateway.select import Selection, Selector
from turnout.gateway.wire import ChatRequest

logger = logging.getLogger(__name__)

_CLOSE_S = 2.0
_AT_ONCE = 16
"""Decisions of one turn: a router reads several texts for little more than one."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One decision to take in the shadow."""

    decision_id: str
    selector: Selector
    request: ChatRequest
    query: Query
    goal: Goal | None
    whose: str | None
    extra_usd_M: Floats | None
    share: float
    """Share of requests that the second deployment serves, as it was for this one."""


@final
class Shadow:
    """The thread, and what waits for it.

    Parameters
    ----------
    ledger:
        Where choices are written.
    max_queue:
        How many may wait.
    rng:
        What stochastic policies draw from.
    """

    def __init__(self, *, ledger: Ledger, max_queue: int, rng: np.random.Generator) -> None:
        self.ledger = ledger
        self.max_queue = max_queue
        self.rng = rng
        self.num_dropped = 0
        self.num_failed = 0
        self._jobs: deque[Job] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Queue a decision; never waits and never raises."""
        if len(self._jobs) >= self.max_queue or self._is_closing:
            self.num_dropped += 1
            return
        self._jobs.append(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="turnout-shadow", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Take the decisions that wait, for a moment, and let the thread go."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not (self._is_closing and not self._jobs):
            self._wake.wait()
            self._wake.clear()
            while self._jobs:
                started_s = time.perf_counter()
                self._decide([self._jobs.popleft() for _ in range(min(len(self._jobs), _AT_ONCE))])
                if not self._is_closing:
                    time.sleep(time.perf_counter() - started_s)

    def _decide(self, jobs: list[Job]) -> None:
        """Decide jobs together where one call can, and each alone where that does not work."""
        groups: dict[object, list[Job]] = {}
        for job in jobs:
            # What the moment adds to the costs of one request is no other's.
            key = (id(job.selector), job.goal) if job.extra_usd_M is None else id(job)
            groups.setdefault(key, []).append(job)
        for group in groups.values():
            found: list[Selection] | None = None
            if len(group) > 1:
                with contextlib.suppress(Exception):
                    queries = [job.query for job in group]
                    found = group[0].selector.choose_all(queries, group[0].goal, group[0].whose, self.rng)
            rows = map(self._alone, group) if found is None else map(_row, group, found)
            for row in rows:
                if not self.ledger.is_full:
                    self.ledger.add(row)

    def _alone(self, job: Job) -> ShadowRow:
        try:
            found = job.selector.choose(
                job.request, job.query, job.goal, job.whose, self.rng, extra_usd_M=job.extra_usd_M
            )
            return _row(job, found)
        except Exception as error:  # The edge: a shadow that fails is news, and nobody's answer.
            self.num_failed += 1
            if self.num_failed == 1:
                logger.exception("the deployment in the shadow failed on request %s", job.decision_id)
            return ShadowRow(
                decision_id=job.decision_id,
                fingerprint=job.selector.fingerprint or "",
                share=job.share,
                error=f"{type(error).__name__}: {error}"[:500],
            )


def _row(job: Job, found: Selection) -> ShadowRow:
    return ShadowRow(
        decision_id=job.decision_id,
        fingerprint=found.fingerprint or "",
        share=job.share,
        chosen=found.ranked[0].name,
        reason=found.reason,
        propensity=found.propensity,
        price=known(found.price),
        expected_quality=known(found.expected_quality),
        expected_cost_usd=known(found.expected_cost_usd),
        decision_s=found.decision_s,
        scores=found.scores,
    )
