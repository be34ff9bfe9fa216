"""This module decides together what comes in the same turn of the event loop.

A router reads several texts at once for little more than one: what a call of it costs besides its texts is
shared. Nobody waits for others: what has come is decided before the loop looks for more. A text's estimates
may differ in the last digits of single precision by the company in which it is read.
"""

from __future__ import annotations

import asyncio
from typing import final

import msgspec

from turnout.core.budget import Goal
from turnout.core.query import Query
from turnout.gateway.select import Selection, Selector
from turnout.gateway.wire import ChatRequest

MAX_CHARS = 65_536
"""Characters that are decided in one turn; what is beyond waits for the next, so that others get theirs."""


@final
class _Waiting(msgspec.Struct, frozen=True, eq=False):
    selector: Selector
    request: ChatRequest
    query: Query
    goal: Goal | None
    whose: str | None
    done: asyncio.Future[Selection]

    @property
    def key(self) -> tuple[int, Goal | None]:
        """What is the same for all that can be decided by one call."""
        return id(self.selector), self.goal


@final
class Gatherer:
    """Gathers requests and asks the selector of each."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def choose(
        self, selector: Selector, request: ChatRequest, query: Query, goal: Goal | None, whose: str | None
    ) -> asyncio.Future[Selection]:
        """Return what will be what `Selector.choose` returns, or raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Selection] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._decide)
        self._waiting.append(_Waiting(selector, request, query, goal, whose, done))
        return done

    def _decide(self) -> None:
        groups: dict[tuple[int, Goal | None], list[_Waiting]] = {}
        num_chars, num = 0, 0
        for one in self._waiting:
            if num and num_chars > MAX_CHARS:
                break
            num, num_chars = num + 1, num_chars + len(one.request.text or "")
            if not one.done.done():  # else its client has left
                groups.setdefault(one.key, []).append(one)
        self._waiting = self._waiting[num:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._decide)
        for group in groups.values():
            _answer(group)


def _answer(group: list[_Waiting]) -> None:
    """Decide for one selector and one goal; an error of one is that one's alone."""
    selector, goal = group[0].selector, group[0].goal
    if len(group) > 1:
        found = selector.choose_all([one.query for one in group], goal, group[0].whose)
        if found is not None:
            for one, selection in zip(group, found, strict=True):
                one.done.set_result(selection)
            return
    for one in group:
        try:
            one.done.set_result(selector.choose(one.request, one.query, goal, one.whose))
        except Exception as error:  # noqa: BLE001 (the edge: raised again where the request is served)
            one.done.set_exception(error)
