"""This module is the step that decides: a request goes in, a ranked list comes out.

A `Decider` may wrap another one, as a cache would that answers at once. What rules put in force stands in the
exchange before.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, final

from turnout.core.outcomes import Floats
from turnout.gateway.account import Account
from turnout.gateway.dial import goal_of
from turnout.gateway.gather import Gatherer
from turnout.gateway.providers.base import Reply
from turnout.gateway.select import Selection, Selector
from turnout.gateway.warmth import key_of

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange
    from turnout.gateway.rules import Ruling

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
    """Asks the deployment, or nobody where the client names a model.

    Parameters
    ----------
    selector:
        What decides.
    ruled:
        Returns the selector under what rules put in force.
    """

    def __init__(
        self, *, selector: Selector, ruled: Callable[[Ruling], Selector] = attrgetter("selector")
    ) -> None:
        self.selector = selector
        self.ruled = ruled
        self._gatherer = Gatherer()

    def selector_of(self, exchange: Exchange) -> Selector:
        """Return what decides a request."""
        return self.selector if exchange.ruling is None else self.ruled(exchange.ruling)

    async def decide(self, exchange: Exchange) -> Selection:
        """Return the selection; raises `ApiError`."""
        request = exchange.request
        goal, whose = goal_of(exchange.headers, exchange.account.key, request.dial)
        selector = self.selector_of(exchange)
        query = request.query(exchange.account.decision_id)
        extra_usd_M = None if exchange.parts.warmth is None else _reading(exchange, selector)
        is_short = request.text is None or len(request.text) <= INLINE_CHARS
        if is_short and extra_usd_M is None and request.model == selector.alias:
            return await self._gatherer.choose(selector, request, query, goal, whose)
        if is_short:
            return selector.choose(request, query, goal, whose, extra_usd_M=extra_usd_M)
        return await asyncio.to_thread(selector.choose, request, query, goal, whose, extra_usd_M=extra_usd_M)


def reading_of(exchange: Exchange, selector: Selector) -> Floats | None:
    """Return what a selector's candidates charge for the turns before; None where nobody has them warm."""
    warmth, request = exchange.parts.warmth, exchange.request
    if warmth is None:
        return None
    key = key_of(exchange.as_sent, exchange.headers, exchange.account.tenant)
    return warmth.reading_usd(key, selector.candidates, request.input_tokens)


def _reading(exchange: Exchange, selector: Selector) -> Floats | None:
    """Return what each candidate charges for the turns before; None where nobody has them warm."""
    request, account, warmth = exchange.request, exchange.account, exchange.parts.warmth
    assert warmth is not None
    key = key_of(exchange.as_sent, exchange.headers, account.tenant)

    def note(ended: Account) -> None:
        tokens_in, tokens_out = ended.counted_tokens
        if ended.status == 200 and ended.served is not None and tokens_in is not None:
            cached = None if ended.usage is None else ended.usage.cached_tokens
            warmth.note(
                key,
                ended.served.name,
                input_tokens=tokens_in,
                output_tokens=tokens_out or 0,
                cached_tokens=cached,
            )

    account.on_end = note
    return warmth.reading_usd(key, selector.candidates, request.input_tokens)
