"""This module is the step that decides: a request goes in, a ranked list comes out.

A `Decider` may wrap another one, as a cache would that answers at once. What rules put in force stands in the
exchange before.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from turnout.gateway.dial import goal_of
from turnout.gateway.providers.base import Reply
from turnout.gateway.select import Selection, Selector

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange

INLINE_CHARS = 16_384
"""Texts up to this length are decided on the event loop; longer ones in a thread beside it."""


class Decider(ABC):
    """Decides requests."""

    @abstractmethod
    async def decide(self, exchange: Exchange) -> Selection | Reply:
        """Return who shall be asked, in order; or a reply, where nobody need be asked.

        May put another request into `exchange.request`. Raises `ApiError` to refuse.
        """


@final
class RouterDecider(Decider):
    """Asks the deployment, or nobody where the client names a candidate.

    Parameters
    ----------
    selector:
        What decides.
    """

    def __init__(self, *, selector: Selector) -> None:
        self.selector = selector

    async def decide(self, exchange: Exchange) -> Selection:
        """Return the selection; raises `ApiError`."""
        request = exchange.request
        goal, whose = goal_of(exchange.headers, exchange.account.key)
        selector = self.selector if exchange.ruling is None else exchange.ruling.selector
        query = request.query(exchange.account.decision_id)
        if request.text is None or len(request.text) <= INLINE_CHARS:
            return selector.choose(request, query, goal, whose)
        return await asyncio.to_thread(selector.choose, request, query, goal, whose)
