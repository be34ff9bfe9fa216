"""This module explains without calling anybody: POST /v1/route says what a request would lead to, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from turnout.core.budget import Goal
from turnout.core.rng import make_rng
from turnout.gateway.ask import read_request
from turnout.gateway.body import read_body
from turnout.gateway.dial import goal_of
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key
from turnout.gateway.parts import Parts
from turnout.gateway.protocols.chat import ChatProtocol
from turnout.gateway.reasons import Json, candidates_in_words, choice_in_words, goal_in_words
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.rewrite import refusal, rewritten
from turnout.gateway.routes import Routes
from turnout.gateway.rules import Rules, Ruling
from turnout.gateway.select import Selection
from turnout.gateway.signals.base import Facts
from turnout.gateway.signals.board import Reader
from turnout.gateway.wire import ChatRequest

ROUTE = "/v1/route"


@final
class Explain:
    """The endpoint that explains. It calls nobody, writes no row, and draws from no generator of the gateway.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._protocol = ChatProtocol()

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("POST", ROUTE, self.explain)

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the decision on a chat request and its reasons; raises `ApiError` (400)."""
        parts = self._parts()
        key: Key | None = scope.get(KEY)
        request = read_request(self._protocol, await read_body(receive, parts.config.server.max_body_mb))
        goal, whose = goal_of(scope["headers"], key, request.dial)
        ruling: Ruling | None = None
        signals: list[Json] = []
        if parts.rules is not None:
            tenant = None if key is None else key.tenant
            facts = Facts(request=request, headers=scope["headers"], tenant=tenant)
            ruling, reader = await parts.rules.find(facts)
            signals = await _signals(parts.rules, reader)
        if ruling is not None:
            request = rewritten(request, ruling.rules, self._protocol)
        decided = await asyncio.to_thread(_decide, parts, ruling, request, goal, whose)
        body: Json = {
            "object": "turnout.route",
            "model": request.model,
            **decided,
            "rules": [] if ruling is None else [rule.name for rule in ruling.rules],
            "signals": signals,
            "request": {
                "input_tokens": request.input_tokens,
                "user_messages": request.num_turns,
                "needs": sorted(request.needs),
            },
        }
        await send_body(send, json_reply(body), [], is_estimated=False)


def _decide(
    parts: Parts, ruling: Ruling | None, request: ChatRequest, goal: Goal | None, whose: str | None
) -> Json:
    """Return what would be decided, or the refusal that the client would get."""
    selector = parts.selector if ruling is None else ruling.selector
    selection: Selection | None = None
    refused: Json | None = None
    is_sequence = parts.sequences.find(request.model) is not None
    try:
        for rule in () if ruling is None else ruling.rules:
            if rule.block is not None:
                raise refusal(rule)
        if not is_sequence:
            rng = make_rng(parts.config.routing.seed, "explain")
            selection = selector.choose(request, request.query("explain"), goal, whose, rng)
    except ApiError as error:
        refused = {"status": error.status, "code": error.code, "message": error.message}
    return {
        **choice_in_words(selection),
        "sequencer": request.model if is_sequence else None,
        "refused": refused,
        "goal": goal_in_words(selector, goal, whose, ruling),
        "candidates": candidates_in_words(parts, selector, selection, request),
    }


async def _signals(rules: Rules, reader: Reader) -> list[Json]:
    """Return what every signal says that a rule names; `read` tells whether the rules came to it."""
    read = set(reader.readings)
    for name in dict.fromkeys(name for rule in rules.rules for name in rule.names):
        await reader.holds(name)
    return [
        {
            "name": reading.name,
            "kind": reading.kind,
            "holds": reading.finding.holds,
            "value": reading.finding.value,
            "note": reading.finding.note,
            "failure": reading.failure,
            "took_us": round(reading.took_s * 1e6),
            "read": reading.name in read,
        }
        for reading in reader.readings.values()
    ]
