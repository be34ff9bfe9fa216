"""This module keeps one pacer for each spend cap in force: a cap is kept on the traffic that comes."""

from __future__ import annotations

import threading
from typing import final

from turnout.core.budget import Goal
from turnout.policies.deployment import Deployment
from turnout.policies.pacing import Pacer

MAX_PACERS = 256
"""Caps that are paced at a time: a client that states ever new caps must not fill the memory."""


@final
class Pacers:
    """The pacers of one deployment, made when a cap is first asked for.

    Only a router has a price to move: where the guard leaves a cap to a single model there is no pacer.
    Beyond `MAX_PACERS` caps, the calibrated price serves.
    """

    def __init__(self, *, deployment: Deployment, is_on: bool) -> None:
        self.deployment = deployment
        self.is_on = is_on
        self._by_goal: dict[Goal, Pacer] = {}
        self._lock = threading.Lock()

    def get(self, goal: Goal | None) -> Pacer | None:
        """Return the pacer for `goal` (None: the deployment's own), or None where nothing is paced."""
        wanted = self.deployment.goal if goal is None else goal
        if not self.is_on or wanted.usd_per_1k is None:
            return None
        pacer = self._by_goal.get(wanted)
        if pacer is not None:
            return pacer
        plan = self.deployment.plan(wanted)
        with self._lock:
            if not plan.is_open or len(self._by_goal) >= MAX_PACERS:
                return None
            return self._by_goal.setdefault(wanted, Pacer(usd_per_1k=wanted.usd_per_1k, price=plan.price))
