"""This module has whoever would serve a request of Responses count its tokens; no model is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.rng import make_rng
from turnout.gateway.admission import check_model
from turnout.gateway.ask import read_request
from turnout.gateway.body import read_body
from turnout.gateway.dial import goal_of
from turnout.gateway.disconnect import Attended, Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError
from turnout.gateway.kept import ask, tenant_of
from turnout.gateway.kept_rules import headers_upstream, told
from turnout.gateway.parts import Parts
from turnout.gateway.pins import keep_to
from turnout.gateway.protocols.responses import ResponsesProtocol
from turnout.gateway.providers.base import KeptCall
from turnout.gateway.providers.blame import lacks_path
from turnout.gateway.reply import header_text, send_body
from turnout.gateway.rewrite import read_once, refusal, rewritten_beside
from turnout.gateway.routes import Routes
from turnout.gateway.rules import Ruling
from turnout.gateway.signals.base import Facts
from turnout.gateway.translate.refusal import not_spoken
from turnout.gateway.wire import ChatRequest, render

PATH = "/v1/responses/input_tokens"

_KIND = "responses"


@final
class InputTokens:
    """The endpoint that has tokens counted. It costs nothing, and stands in no ledger.

    Parameters
    ----------
    parts:
        Returns the parts in force.
    """

    def __init__(self, *, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._protocol = ResponsesProtocol()

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("POST", PATH, self.count)

    async def count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the upstream that would serve a request of Responses count its tokens."""
        parts = self._parts()
        body = await read_body(scope, receive, parts.config.server)
        as_sent = read_request(self._protocol, body, parts.config.routing.alias, scope["headers"])
        if (key := scope.get(KEY)) is not None:
            check_model(key, as_sent.model)
        request, ruling = await self._ruled(parts, scope, as_sent)
        candidate = await _server_of(parts, scope, request, ruling)
        provider, model = parts.places[candidate.name]
        call = KeptCall(
            method="POST",
            kind=_KIND,
            path="/input_tokens",
            body=render({**request.members, "model": msgspec.json.encode(model)}),
            headers=headers_upstream(scope, ruling),
        )
        with Attended(receive, scope):
            reply = await ask(provider, call)
        if lacks_path(reply.status, reply.body):
            raise not_spoken(PATH).error
        named = (b"x-turnout-model", header_text(candidate.name))
        await send_body(send, reply, [*told(ruling), named], is_estimated=False)

    async def _ruled(
        self, parts: Parts, scope: Scope, request: ChatRequest
    ) -> tuple[ChatRequest, Ruling | None]:
        """Return the request as rules leave it: it goes upstream. Raises `ApiError` (403)."""
        if parts.rules is None:
            return request, None
        request = await read_once(request)
        key = scope.get(KEY)
        tenant = None if key is None else key.tenant
        ruling, _ = await parts.rules.find(Facts(request=request, headers=scope["headers"], tenant=tenant))
        if ruling is None:
            return request, None
        for rule in ruling.rules:
            if rule.block is not None:
                raise refusal(rule)
        return await rewritten_beside(request, ruling.rules, self._protocol), ruling


async def _server_of(parts: Parts, scope: Scope, request: ChatRequest, ruling: Ruling | None) -> Candidate:
    """Return who would serve a request, of those whose provider has Responses; raises `ApiError`."""
    if parts.sequences.find(request.model) is not None:
        raise _nobody()
    selector = parts.selector if ruling is None else ruling.selector
    goal, whose = goal_of(scope["headers"], scope.get(KEY), request.dial)
    # Only looked at: nothing is drawn from the gateway's own generators.
    rng = make_rng(parts.config.routing.seed, "explain")
    selection = await asyncio.to_thread(
        selector.choose, request, request.query("input_tokens"), goal, whose, rng
    )
    if request.follows:
        pin = await parts.pins.find_for(request.follows, tenant_of(scope))
        selection = keep_to(pin, selection, known=parts.selector.known, places=parts.places)
    for candidate in selection.ranked:
        if parts.places[candidate.name][0].keeps(_KIND):
            return candidate
    raise _nobody()


def _nobody() -> ApiError:
    return not_spoken(PATH).error
