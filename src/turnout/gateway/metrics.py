"""This module counts what became of requests, for Prometheus: plain dictionaries, one call per request.

The numbers of one process are a `Tally`, which can be written down and added to another's. The number of
series is bounded: labels come from the settings and from the gateway's own words, and beyond `MAX_SERIES`
they are counted together as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, final

import msgspec

from turnout.gateway.account import Account

if TYPE_CHECKING:
    from turnout.gateway.board import Board

MAX_SERIES = 1000
"""Combinations of labels that one family keeps apart."""

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Upper ends of the buckets of every histogram, in seconds."""

Labels = tuple[str, ...]

COUNTERS: dict[str, tuple[str, Labels]] = {
    "turnout_requests": ("Requests that have ended.", ("model", "provider", "status")),
    "turnout_errors": ("Requests that ended in an error, by its code.", ("error",)),
    "turnout_tokens": ("Tokens of answered requests.", ("model", "direction")),
    "turnout_spend_usd": (
        "Known spend in USD; a replay was charged to nobody.",
        ("model", "replayed"),
    ),
    "turnout_unpriced_requests": ("Answered requests whose spend is not known.", ("model",)),
    "turnout_estimated_requests": ("Answered requests whose token counts are estimates.", ("model",)),
    "turnout_fallbacks": ("Requests that another candidate served than was chosen.", ("chosen", "served")),
    "turnout_calls": ("Calls of candidates, failed ones included.", ()),
    "turnout_faults": ("Calls that failed or were not made, by candidate or provider.", ("who", "fault")),
}
"""Name without `_total` -> (what it counts, its labels)."""

HISTOGRAMS: dict[str, tuple[str, Labels]] = {
    "turnout_request_seconds": ("Seconds from a request's coming to its end.", ("model",)),
    "turnout_first_byte_seconds": ("Seconds to the first byte of an answer.", ("model",)),
    "turnout_decision_seconds": ("Seconds that a decision took.", ()),
}


class Tally(msgspec.Struct):
    """The numbers of one process, or the sum of several."""

    counters: dict[str, dict[Labels, float]] = {}
    histograms: dict[str, dict[Labels, list[float]]] = {}
    """For each bucket its own count, the last one without an end; then the sum in seconds."""

    def count(self, name: str, labels: Labels, amount: float = 1.0) -> None:
        """Add to a counter."""
        try:
            self.counters[name][labels] += amount
        except KeyError:
            self._count_first(name, labels, amount)

    def _count_first(self, name: str, labels: Labels, amount: float) -> None:
        family = self.counters.setdefault(name, {})
        labels = _bounded(family, labels)
        family[labels] = family.get(labels, 0.0) + amount

    def time(self, name: str, labels: Labels, seconds: float) -> None:
        """Add to a histogram."""
        try:
            series = self.histograms[name][labels]
        except KeyError:
            series = self._series(name, labels)
        series[bisect_left(BOUNDS_S, seconds)] += 1
        series[-1] += seconds

    def _series(self, name: str, labels: Labels) -> list[float]:
        family = self.histograms.setdefault(name, {})
        return family.setdefault(_bounded(family, labels), [0.0] * (len(BOUNDS_S) + 2))

    def add(self, other: Tally) -> None:
        """Add another's numbers."""
        for name, family in other.counters.items():
            for labels, amount in family.items():
                self.count(name, labels, amount)
        for name, series_by in other.histograms.items():
            mine = self.histograms.setdefault(name, {})
            for labels, series in series_by.items():
                before = mine.get(labels, [0.0] * len(series))
                mine[labels] = [a + b for a, b in zip(before, series, strict=True)]


def _bounded(family: Collection[Labels], labels: Labels) -> Labels:
    """Return the labels, or those of all that there is no room for."""
    if labels not in family and len(family) >= MAX_SERIES:
        return ("other",) * len(labels)
    return labels


@final
class Metrics:
    """Counts the requests of this process."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.board: Board | None = None
        """Where the numbers of the other workers are, if there are any."""

    def observe(self, account: Account) -> None:
        """Count a request that has ended."""
        if account.status is None:
            return
        tally = self.tally
        model = "" if account.served_name is None else account.served_name
        tally.count("turnout_requests", (model, account.provider or "", str(account.status)))
        tally.time("turnout_request_seconds", (model,), account.latency_s)
        if account.error is not None:
            tally.count("turnout_errors", (account.error,))
        if account.first_byte_s is not None:
            tally.time("turnout_first_byte_seconds", (model,), account.first_byte_s)
        selection = account.selection
        if selection is not None:
            tally.time("turnout_decision_seconds", (), selection.decision_s)
            chosen = selection.ranked[0].name
            if account.served is not None and account.served.name != chosen:
                tally.count("turnout_fallbacks", (chosen, model))
        if account.attempts:
            tally.count("turnout_calls", (), account.attempts)
        if account.faults:
            self._count_faults(account.faults)
        if account.usd is not None:
            # Who gave no answer may charge all the same.
            is_replay = "true" if account.is_replay else "false"
            tally.count("turnout_spend_usd", (model, is_replay), account.usd)
        if model:
            self._count_answer(model, account)

    def _count_answer(self, model: str, account: Account) -> None:
        tally = self.tally
        tokens_in, tokens_out = account.counted_tokens
        if tokens_in is not None:
            tally.count("turnout_tokens", (model, "input"), tokens_in)
        if tokens_out is not None:
            tally.count("turnout_tokens", (model, "output"), tokens_out)
        if account.usd is None:
            tally.count("turnout_unpriced_requests", (model,))
        if account.is_estimated:
            tally.count("turnout_estimated_requests", (model,))

    def _count_faults(self, faults: Iterable[str]) -> None:
        for fault in faults:
            who, _, code = fault.rpartition(": ")
            self.tally.count("turnout_faults", (who, code))
