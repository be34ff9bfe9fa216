"""This module explains without calling anybody: POST /v1/route says what a request would lead to, and why."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import parse_qs

from turnout.core.budget import Goal
from turnout.core.errors import did_you_mean, sentence
from turnout.core.outcomes import Floats
from turnout.core.rng import make_rng
from turnout.gateway.admission import check_model
from turnout.gateway.ask import read_request
from turnout.gateway.body import read_body
from turnout.gateway.dial import goal_of
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError
from turnout.gateway.explore import undrawn
from turnout.gateway.key import Key
from turnout.gateway.parts import Parts
from turnout.gateway.pins import going_on, keep_to
from turnout.gateway.protocols import PROTOCOLS
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.protocols.chat import ChatProtocol
from turnout.gateway.protocols.messages import MessagesProtocol
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.reasons import Json, candidates_in_words, choice_in_words, goal_in_words
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.rewrite import read_once, refusal, rewritten_beside
from turnout.gateway.rollout import RolloutDecider
from turnout.gateway.routes import Routes
from turnout.gateway.rules import Rules, Ruling
from turnout.gateway.select import Selection, Selector
from turnout.gateway.signals.base import Facts
from turnout.gateway.signals.board import Reader
from turnout.gateway.warmth import key_of
from turnout.gateway.wire import ChatRequest, parse_members

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
        self._protocols = {protocol.name: protocol for protocol in PROTOCOLS if protocol.is_routed}

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("POST", ROUTE, self.explain)

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the decision on a request and its reasons; raises `ApiError` (400)."""
        parts = self._parts()
        key: Key | None = scope.get(KEY)
        body = await read_body(scope, receive, parts.config.server)
        protocol = self._protocol(scope, body)
        request = read_request(protocol, body, parts.config.routing.alias, scope["headers"])
        goal, whose = goal_of(scope["headers"], key, request.dial)
        ruling: Ruling | None = None
        signals: list[Json] = []
        if parts.rules is not None:
            request = await read_once(request)
            tenant = None if key is None else key.tenant
            facts = Facts(request=request, headers=scope["headers"], tenant=tenant)
            ruling, reader = await parts.rules.find(facts)
            signals = await _signals(parts.rules, reader)
        as_sent = request
        if ruling is not None:
            request = await rewritten_beside(request, ruling.rules, protocol)
        tenant = "" if key is None else key.tenant
        pin = await parts.pins.find_for(request.follows, tenant) if request.follows else None
        request = going_on(pin, request)
        keep = functools.partial(keep_to, pin, known=parts.selector.known, places=parts.places)
        asked = _Asked(
            request=request, as_sent=as_sent, headers=scope["headers"], key=key, goal=goal, whose=whose
        )
        decided = await asyncio.to_thread(_decide, parts, ruling, asked, keep)
        answer: Json = {
            "object": "turnout.route",
            "api": protocol.name,
            "model": request.model,
            **decided,
            "rules": [] if ruling is None else [rule.name for rule in ruling.rules],
            "signals": signals,
            "request": {
                "input_tokens": request.prompt_tokens,
                "user_messages": request.num_turns,
                "needs": sorted(request.needs),
                "task": request.told.task,
                "tags": dict(request.told.tags),
            },
        }
        await send_body(send, json_reply(answer), [], is_estimated=False)

    def _protocol(self, scope: Scope, body: bytes) -> Protocol:
        """Return the API of a body: what `?api=` says, else what headers and members show."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("api")
        if asked is None:
            if any(name == b"anthropic-version" for name, _ in scope["headers"]):
                return self._protocols[MessagesProtocol.name]
            members = parse_members(body)
            is_responses = "input" in members and "messages" not in members
            return self._protocols[ResponsesProtocol.name if is_responses else ChatProtocol.name]
        if asked[-1] not in self._protocols:
            what, allowed = "the parameter 'api' names no API that is routed", ", ".join(self._protocols)
            message = sentence(
                what, allowed=allowed, got=asked[-1][:80], do=did_you_mean(asked[-1], self._protocols)
            )
            raise ApiError(400, message, code="unknown_api", param="api")
        return self._protocols[asked[-1]]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A request with what it came with."""

    request: ChatRequest
    as_sent: ChatRequest
    """The same before rules changed it."""
    headers: Sequence[tuple[bytes, bytes]]
    key: Key | None
    goal: Goal | None
    whose: str | None

    def reading(self, parts: Parts, selector: Selector) -> Floats | None:
        """Return what each candidate charges for the turns before; None where nobody has them warm."""
        if parts.warmth is None:
            return None
        key = key_of(self.as_sent, self.headers, "" if self.key is None else self.key.tenant)
        return parts.warmth.reading_usd(key, selector.candidates, self.request.input_tokens)


def _decide(
    parts: Parts, ruling: Ruling | None, asked: _Asked, keep: Callable[[Selection], Selection]
) -> Json:
    """Return what would be decided, or the refusal that the client would get."""
    request = asked.request
    decider = parts.decider
    sides: Mapping[Any, Selector] = {None: parts.selector if ruling is None else ruling.selector}
    if isinstance(decider, RolloutDecider):
        sides = decider.selectors(asked.as_sent, asked.headers, asked.key, ruling)
    is_sequence = parts.sequences.find(request.model) is not None
    side, selector = next(iter(sides.items()))
    selection, refused = None, _refused(ruling, asked)
    if refused is None and not is_sequence:
        for side, selector in sides.items():  # noqa: B007 (whoever decided is told below)
            selection, refused = _chosen(parts, selector, asked, keep)
            if refused is None:
                break
    return {
        **choice_in_words(selection),
        "branch": side,
        "explore_share": selector.explore_share,
        "sequencer": request.model if is_sequence else None,
        "refused": None if refused is None else _in_words(refused),
        "goal": goal_in_words(selector, asked.goal, asked.whose, ruling),
        "candidates": candidates_in_words(parts, selector, selection, request),
    }


def _refused(ruling: Ruling | None, asked: _Asked) -> ApiError | None:
    """Return what the client would be told before anything is decided."""
    try:
        if asked.key is not None:
            check_model(asked.key, asked.request.model)
    except ApiError as error:
        return error
    blocking = [rule for rule in (() if ruling is None else ruling.rules) if rule.block is not None]
    return refusal(blocking[0]) if blocking else None


def _chosen(
    parts: Parts, selector: Selector, asked: _Asked, keep: Callable[[Selection], Selection]
) -> tuple[Selection | None, ApiError | None]:
    """Return the router's own choice, with the propensity that serving would give it; or a refusal."""
    rng = make_rng(parts.config.routing.seed, "explain")
    query = asked.request.query("explain")
    extra_usd_M = asked.reading(parts, selector)
    try:
        found = selector.choose(asked.request, query, asked.goal, asked.whose, rng, extra_usd_M=extra_usd_M)
        # As in serving: a conversation that somebody has read stays there, and nobody is drawn.
        return keep(undrawn(found, selector.explore_share) if extra_usd_M is None else found), None
    except ApiError as error:
        return None, error


def _in_words(error: ApiError) -> Json:
    return {"status": error.status, "code": error.code, "message": error.message}


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
