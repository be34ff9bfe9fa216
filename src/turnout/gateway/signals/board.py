"""This module reads signals: at most once per request, within a budget, with a default for one that fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

from turnout.gateway.beside import beside
from turnout.gateway.settings_signals import SIGNAL_KINDS, SignalSettings
from turnout.gateway.signals.base import Facts, Finding, Reading, Signal
from turnout.gateway.signals.care import FeedbackSignal, JailbreakSignal, PiiSignal
from turnout.gateway.signals.domain import DomainSignal
from turnout.gateway.signals.shape import HeaderSignal, LengthSignal, NeedsSignal, TenantSignal
from turnout.gateway.signals.similarity import SimilaritySignal
from turnout.gateway.signals.words import (
    CodeSignal,
    ComplexitySignal,
    KeywordSignal,
    LanguageSignal,
    RegexSignal,
)

logger = logging.getLogger(__name__)

CLASSES: Mapping[str, Callable[..., Signal]] = {
    "code": CodeSignal,
    "complexity": ComplexitySignal,
    "domain": DomainSignal,
    "feedback": FeedbackSignal,
    "header": HeaderSignal,
    "jailbreak": JailbreakSignal,
    "keyword": KeywordSignal,
    "language": LanguageSignal,
    "length": LengthSignal,
    "needs": NeedsSignal,
    "pii": PiiSignal,
    "regex": RegexSignal,
    "similarity": SimilaritySignal,
    "tenant": TenantSignal,
}
"""Kind -> the class that reads it."""

_THREADS = 2
_MAX_WAITING = 64
"""Readings that may wait for a thread; beyond them the default holds at once."""


@final
class Board:
    """The signals of a configuration.

    Parameters
    ----------
    settings:
        By name. Raises `ConfigError` or `ArtifactError` for one that cannot be made.
    """

    def __init__(self, *, settings: Mapping[str, SignalSettings]) -> None:
        self.settings = dict(settings)
        kinds = {kind: name for name, kind in SIGNAL_KINDS.items()}
        self.kinds = {name: kinds[type(own)] for name, own in settings.items()}
        self.signals = {
            name: CLASSES[self.kinds[name]](name=name, settings=own) for name, own in settings.items()
        }
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="turnout-signal")
        self._num_waiting = 0
        self._told: set[str] = set()

    def reader(self, facts: Facts) -> Reader:
        """Return what reads the signals of one request."""
        return Reader(board=self, facts=facts)

    async def read(self, name: str, facts: Facts) -> Reading:
        """Return what a signal says, or its default; never raises for what a signal does."""
        signal = self.signals[name]
        started_s = time.perf_counter()
        failure: str | None = None
        finding = Finding(holds=self.settings[name].default)
        try:
            if signal.is_slow:
                finding = await self._read_beside(name, signal, facts)
            elif facts.is_long:
                finding = await beside(signal.read, facts)
            else:
                finding = signal.read(facts)
        except TimeoutError:
            failure = "too slow"
        except _BusyError:
            failure = "busy"
        except Exception as error:  # The edge: a signal that fails must not fail the request.
            failure = type(error).__name__
            if name not in self._told:
                self._told.add(name)
                logger.exception("the signal %r failed; its default holds", name)
        return Reading(
            name=name,
            kind=self.kinds[name],
            finding=finding,
            took_s=time.perf_counter() - started_s,
            failure=failure,
        )

    async def _read_beside(self, name: str, signal: Signal, facts: Facts) -> Finding:
        """Read in a thread and wait no longer than the budget; the thread ends by itself."""
        if self._num_waiting >= _MAX_WAITING:
            raise _BusyError
        self._num_waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, signal.read, facts)
        running.add_done_callback(self._leave)
        return await asyncio.wait_for(asyncio.shield(running), self.settings[name].budget_ms / 1000)

    def _leave(self, done: Any) -> None:
        self._num_waiting -= 1
        if not done.cancelled():
            done.exception()  # was told, or nobody waits for it

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _BusyError(RuntimeError):
    """So many readings wait that one more would wait in vain."""


@final
class Reader:
    """Reads the signals of one request, each at most once.

    Parameters
    ----------
    board:
        All signals.
    facts:
        The request.
    """

    __slots__ = ("board", "facts", "readings")

    def __init__(self, *, board: Board, facts: Facts) -> None:
        self.board = board
        self.facts = facts
        self.readings: dict[str, Reading] = {}
        """What was read so far, by name."""

    async def holds(self, name: str) -> bool:
        """Return whether a signal holds."""
        reading = self.readings.get(name)
        if reading is None:
            reading = self.readings[name] = await self.board.read(name, self.facts)
        return reading.finding.holds
