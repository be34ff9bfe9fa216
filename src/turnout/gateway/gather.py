"""This module decides together what comes in the same turns of the event loop.

A router reads several texts at once for little more than one: what a call of it costs besides its texts is
shared. Who comes alone waits for nobody. Where several come in one turn, the loop is busy and the next turn
brings more of them: they wait for it, some microseconds, and are decided by half as many calls. Streams do
not: each turn reads what has come of all streams in smaller pieces. A text's estimates may differ in the last
digits of single precision by the company in which it is read.
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

MOST_TURNS = 3
"""Turns for which those wait that came together."""
SEVERAL = 2
"""Newcomers of a turn from which on another one is waited for."""
ENOUGH = 64
"""Requests that wait for no more: a larger call is no cheaper."""


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
        self._num_seen = self._num_turns = 0

    def choose(
        self, selector: Selector, request: ChatRequest, query: Query, goal: Goal | None, whose: str | None
    ) -> asyncio.Future[Selection]:
        """Return what will be what `Selector.choose` returns, or raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Selection] = loop.create_future()
        if not self._waiting:
            self._num_seen = self._num_turns = 0
            loop.call_soon(self._decide)
        if request.is_stream:
            self._num_turns = MOST_TURNS
        self._waiting.append(_Waiting(selector, request, query, goal, whose, done))
        return done

    def _decide(self) -> None:
        num = len(self._waiting)
        if self._num_turns < MOST_TURNS and self._num_seen + SEVERAL <= num < ENOUGH:
            self._num_seen, self._num_turns = num, self._num_turns + 1
            asyncio.get_running_loop().call_soon(self._decide)
            return
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
            self._num_turns = MOST_TURNS  # they have waited
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
