"""This module is the step that decides: a request goes in, a ranked list comes out.

A `Decider` may wrap another one: rules narrow the pool, a cache answers at once, a plugin rewrites the
request.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from turnout.gateway.providers.base import Reply
from turnout.gateway.select import Selection, Selector, read_goal

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
        goal = read_goal(exchange.headers)
        query = request.query(exchange.account.decision_id)
        if request.text is None or len(request.text) <= INLINE_CHARS:
            return self.selector.choose(request, query, goal)
        return await asyncio.to_thread(self.selector.choose, request, query, goal)
