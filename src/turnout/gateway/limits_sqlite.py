"""This module counts spend and rates in SQLite: the embedded form, for the workers of one machine.

Every step is one transaction that takes the write lock first, so two processes cannot read the same
remainder. It runs on the event loop: a step is some tens of microseconds, and only keys with a limit pay it.
A step that meets a lock is tried again, and stops nobody else meanwhile (`Turns`); a settlement is tried
until it is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import final

from turnout.core.clock import Clock
from turnout.gateway.limits import Limits, Rate, Spend, TooFast, largest, refilled, refusal
from turnout.gateway.turns import Turns

_ADD = """
INSERT INTO spend VALUES (:key, :period, max(0, :spent), max(0, :held)) ON CONFLICT (key, period) DO UPDATE
SET spent_usd = spent_usd + :spent, held_usd = max(0, held_usd + :held)
"""
_SET = "INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?)"


@final
class SqliteLimits(Limits):
    """Counts in the file of keys.

    Parameters
    ----------
    connection:
        An open file of keys, in autocommit mode.
    clock:
        What time it is.
    """

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self.turns = Turns(connection)

    async def take(self, key: str, rates: Sequence[Rate]) -> TooFast | None:
        """Take from every bucket, or from none."""
        return await self.turns.do(lambda: self._take(key, rates))

    async def reserve(
        self, key: str, period: str, *, budget_usd: float, wanted_usd: Sequence[float]
    ) -> tuple[float | None, Spend]:
        """Reserve the largest of the sums that is left."""
        return await self.turns.do(lambda: self._reserve(key, period, budget_usd, wanted_usd))

    def settle(self, key: str, period: str, *, held_usd: float, usd: float) -> None:
        """Put what was spent in the place of what was reserved."""
        self.turns.later(lambda: self._settle(key, period, held_usd, usd))

    def give_back(self, key: str, rate: Rate) -> None:
        """Put an amount back into a bucket."""
        self.turns.later(lambda: self._give_back(key, rate))

    async def spend(self, key: str, period: str) -> Spend:
        """Return what a key has spent."""
        return await self.turns.do(lambda: self._spend(key, period))

    async def close(self) -> None:
        """Do what waits for its turn, and close the file."""
        try:
            await self.turns.finish()
        finally:
            self.connection.close()

    def _take(self, key: str, rates: Sequence[Rate]) -> TooFast | None:
        now_s = self.clock.now_s()
        with self._transaction():
            levels = [self._level(key, rate, now_s) for rate in rates]
            refused = [refusal(rate, level) for rate, level in zip(rates, levels, strict=True)]
            worst = max((one for one in refused if one is not None), key=lambda one: one.wait_s, default=None)
            if worst is None:
                for rate, level in zip(rates, levels, strict=True):
                    self.connection.execute(_SET, (key, rate.kind, level - rate.amount, now_s))
            return worst

    def _reserve(
        self, key: str, period: str, budget_usd: float, wanted_usd: Sequence[float]
    ) -> tuple[float | None, Spend]:
        with self._transaction():
            before = self._spend(key, period)
            usd = largest(wanted_usd, budget_usd - before.spent_usd - before.held_usd)
            if usd is not None:
                self._add(key, period, spent=0.0, held=usd)
            return usd, before

    def _settle(self, key: str, period: str, held_usd: float, usd: float) -> None:
        with self._transaction():
            self._add(key, period, spent=usd, held=-held_usd)

    def _give_back(self, key: str, rate: Rate) -> None:
        now_s = self.clock.now_s()
        with self._transaction():
            level = self._level(key, rate, now_s) + rate.amount
            self.connection.execute(_SET, (key, rate.kind, min(level, rate.per_min), now_s))

    def _spend(self, key: str, period: str) -> Spend:
        query = "SELECT spent_usd, held_usd FROM spend WHERE key = ? AND period = ?"
        row = self.connection.execute(query, (key, period)).fetchone()
        return Spend() if row is None else Spend(spent_usd=row[0], held_usd=row[1])

    def _add(self, key: str, period: str, *, spent: float, held: float) -> None:
        row = {"key": key, "period": period, "spent": spent, "held": held}
        self.connection.execute(_ADD, row)

    def _level(self, key: str, rate: Rate, now_s: float) -> float:
        query = "SELECT level, time_s FROM buckets WHERE key = ? AND kind = ?"
        row = self.connection.execute(query, (key, rate.kind)).fetchone()
        return float(rate.per_min) if row is None else refilled(row[0], row[1], now_s, rate.per_min)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself where the disk is full.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
