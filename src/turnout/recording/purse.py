"""This module keeps a spend cap: the most that a call may cost is put aside before it, and settled after."""

from __future__ import annotations

import asyncio
import math
from typing import final

from turnout.core.errors import InputError, sentence


@final
class Purse:
    """Money that a run may spend.

    What is spent and what calls in flight may still cost never exceed the cap together, so that no order of
    answers can break it.

    Parameters
    ----------
    cap_usd:
        Most USD, what earlier runs spent included; None means no cap.
    spent_usd:
        What was spent before.
    """

    def __init__(self, *, cap_usd: float | None, spent_usd: float = 0.0) -> None:
        if cap_usd is not None and not (math.isfinite(cap_usd) and cap_usd >= 0):
            raise InputError(sentence("the spend cap", allowed="USD, at least 0", got=cap_usd))
        self.cap_usd = cap_usd
        self.spent_usd = spent_usd
        self._held: dict[int, float] = {}
        self._next = 0
        self._change = asyncio.Condition()

    async def reserve(self, usd: float) -> int | None:
        """Put `usd` aside and return what to settle it by; None where the cap has no room for it.

        Waits while calls in flight may still give back some of what they hold.
        """
        async with self._change:
            while self.cap_usd is not None and self._committed() + usd > self.cap_usd:
                if not self._held:
                    return None
                await self._change.wait()
            self._next += 1
            self._held[self._next] = usd
            return self._next

    async def settle(self, hold: int, usd: float) -> None:
        """Spend `usd` and give back what was put aside beyond it."""
        async with self._change:
            del self._held[hold]
            self.spent_usd += usd
            self._change.notify_all()

    def _committed(self) -> float:
        return math.fsum([self.spent_usd, *self._held.values()])
