"""This module states how spend and rates are counted, by whoever shares the count.

A budget is kept by reserving: before anybody is asked, the most that an answer may cost is taken from it, and
what is left over is given back when the cost is known. All of it is one atomic step, so that requests that
come together cannot spend the same money. What a process that died had reserved stays taken until the period
ends, because nobody knows what its answers cost.

A rate is a bucket that holds a minute's worth and fills at the rate's speed. It may go below zero by one
request whose tokens were underestimated; the next ones wait for that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

Kind = Literal["requests", "tokens"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """One rate of a key, and what a request takes of it."""

    kind: Kind
    per_min: int
    amount: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class TooFast:
    """A refusal by a rate: which, and when it would be none."""

    kind: Kind
    per_min: int
    left: float
    wait_s: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Spend:
    """What a key has spent in a period, and what running requests hold."""

    spent_usd: float = 0.0
    held_usd: float = 0.0


class Limits(ABC):
    """Counts what keys spend; the count is shared by every process that opens the same one."""

    @abstractmethod
    async def take(self, key: str, rates: Sequence[Rate]) -> TooFast | None:
        """Take from every bucket, or from none; return the refusal that lasts longest."""

    @abstractmethod
    async def reserve(
        self, key: str, period: str, *, budget_usd: float, wanted_usd: Sequence[float]
    ) -> tuple[float | None, Spend]:
        """Reserve the largest of the sums that is left; return it, or None, and the spend before that."""

    @abstractmethod
    def settle(self, key: str, period: str, *, held_usd: float, usd: float) -> None:
        """Put what was spent in the place of what was reserved; never waits."""

    @abstractmethod
    def give_back(self, key: str, rate: Rate) -> None:
        """Put an amount back into a bucket, or take more where it is negative; never waits."""

    @abstractmethod
    async def spend(self, key: str, period: str) -> Spend:
        """Return what a key has spent."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what `settle` and `give_back` began, and close what the count is kept in."""


def refilled(level: float, then_s: float, now_s: float, per_min: int) -> float:
    """Return what a bucket holds now."""
    return min(float(per_min), level + max(0.0, now_s - then_s) * per_min / 60.0)


def refusal(rate: Rate, level: float) -> TooFast | None:
    """Return the refusal of a bucket at this level, or None where it gives the amount.

    An amount that no bucket can hold passes where the bucket is full.
    """
    needed = min(rate.amount, float(rate.per_min))
    if level >= needed:
        return None
    wait_s = (needed - level) * 60.0 / rate.per_min
    return TooFast(kind=rate.kind, per_min=rate.per_min, left=max(0.0, level), wait_s=wait_s)


def largest(wanted_usd: Sequence[float], left_usd: float) -> float | None:
    """Return the largest sum that is left, or None; infinity stands for all of it, where there is any."""
    # A budget of 0.3 pays 0.1 three times: the rounding of the sum must not refuse the third.
    most = left_usd * (1 + 1e-12) + 1e-15
    fitting = [usd for usd in wanted_usd if usd <= most]
    if left_usd > 0 and any(usd == float("inf") for usd in wanted_usd):
        fitting.append(left_usd)
    return max(fitting, default=None)
