"""This module applies rules to calls that ask no model: what is written upstream, and with which headers.

Where a call carries texts, rules replace personal data in them and may refuse them. A call without texts says
nothing about what it asks for, so it is never refused; headers that a rule sends upstream go along with it,
since they may say whose account is meant.
"""

from __future__ import annotations

from turnout.gateway.disconnect import Scope
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.onward import Pairs, passed_on
from turnout.gateway.parts import Parts
from turnout.gateway.protocols.responses_wire import parse_responses
from turnout.gateway.redaction import without_twins
from turnout.gateway.reply import header_text
from turnout.gateway.rewrite import redacted, redo, refusal
from turnout.gateway.rules import Ruling
from turnout.gateway.signals.base import Facts
from turnout.gateway.wire import ChatRequest, Members, is_given, render, too_deep, wrong

ITEMS = "items"
"""The member that holds what is written into a conversation."""


async def ruled(parts: Parts, scope: Scope, members: Members) -> tuple[Members, Ruling | None]:
    """Return the members as rules leave them, and what is in force; raises `ApiError` (400, 403)."""
    if parts.rules is None:
        return members, None
    try:
        members = await redo(without_twins, members)
    except RecursionError as error:
        raise too_deep() from error
    key = scope.get(KEY)
    facts = Facts(
        request=_as_request(members), headers=scope["headers"], tenant=None if key is None else key.tenant
    )
    ruling, _ = await parts.rules.find(facts)
    if ruling is None:
        return members, None
    if is_given(members, ITEMS):
        for rule in ruling.rules:
            if rule.block is not None:
                raise refusal(rule)
    try:
        return await redo(redacted, members, ruling.rules), ruling
    except RecursionError as error:
        raise too_deep() from error


def headers_upstream(scope: Scope, ruling: Ruling | None) -> Pairs:
    """Return what goes along: the client's trace and the betas that it asks for, then what rules send."""
    trace, betas = passed_on(scope["headers"])
    return (*trace, *betas, *(() if ruling is None else ruling.request_headers))


def told(ruling: Ruling | None) -> Headers:
    """Return the headers of an answer that say what was in force."""
    if ruling is None:
        return []
    return [*ruling.response_headers, (b"x-turnout-rule", header_text(ruling.name))]


def _as_request(members: Members) -> ChatRequest:
    """Return what signals read: the items as the input of a request of Responses."""
    items = members[ITEMS] if is_given(members, ITEMS) else b"[]"
    try:
        return parse_responses(render({"input": items}))
    except ApiError as error:
        do = 'send for example [{"role": "user", "content": "hello"}]'
        raise wrong(ITEMS, "a list of items", bytes(items), do) from error
