"""This module changes a request as a rule says, before anybody upstream sees it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from turnout.core.errors import sentence
from turnout.features.pii import KINDS, find_pii, redact
from turnout.gateway.beside import beside, is_long
from turnout.gateway.conversation import with_system
from turnout.gateway.errors import ApiError
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.redaction import map_texts, without_twins
from turnout.gateway.settings_rules import ALL_PII, RuleSettings
from turnout.gateway.told import Told
from turnout.gateway.wire import ChatRequest, Members, render, too_deep

_NUMBERS = re.compile(r"[-+.,\seE\d]*")
BLOCKED = "blocked_by_rule"
"""The code of a request that a rule refuses."""


async def read_once(request: ChatRequest) -> ChatRequest:
    """Return the request without what an object has twice: what is sent is what rules have read.

    Raises `ApiError` (400) for one that is nested too deeply to be gone through.
    """
    try:
        members = await redo(without_twins, request.members)
    except RecursionError as error:
        raise too_deep() from error
    return request if members is request.members else msgspec.structs.replace(request, members=members)


async def redo(change: Callable[..., Members], members: Members, *more: object) -> Members:
    """Return the members as a change leaves them; long ones are gone through beside the event loop."""
    return await beside(change, members, *more) if is_long(members) else change(members, *more)


async def rewritten_beside(
    request: ChatRequest, rules: tuple[RuleSettings, ...], protocol: Protocol
) -> ChatRequest:
    """Return what `rewritten` does; a long request is gone through beside the event loop."""
    if is_long(request.members):
        return await beside(rewritten, request, rules, protocol)
    return rewritten(request, rules, protocol)


def rewritten(request: ChatRequest, rules: tuple[RuleSettings, ...], protocol: Protocol) -> ChatRequest:
    """Return the request with what the rules add and replace; the same one where they change nothing.

    Raises `ApiError` (400) for one that is nested too deeply to be gone through.
    """
    try:
        members = _changed(request.members, rules, protocol)
    except RecursionError as error:
        raise too_deep() from error
    if members is request.members and not (request.told.tags or request.told.task):
        return request
    told = _told(request.told, rules)
    parsed = protocol.parse(render(members))
    # Who named no model asks the router, and the members do not say so.
    model = parsed.model or request.model
    return msgspec.structs.replace(parsed, model=model, dial=request.dial, told=told)


def _changed(members: Members, rules: tuple[RuleSettings, ...], protocol: Protocol) -> Members:
    members = redacted(members, rules)
    for rule in rules:
        if rule.system_prompt is not None:
            members = with_system(
                members, rule.system_prompt, place=rule.system_place, protocol=protocol.name
            )
        if rule.set_fields:
            fields = rule.set_fields.items()
            members = members | {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields}
    return members


def redacted(members: Members, rules: tuple[RuleSettings, ...]) -> Members:
    """Return the members without the personal data that the rules take out; raises `RecursionError`."""
    kinds = _kinds(rules)
    if not kinds:
        return members
    known: dict[str, dict[str, int]] = {}
    return map_texts(members, lambda text: redact(text, find_pii(text, kinds), known))


def _told(told: Told, rules: tuple[RuleSettings, ...]) -> Told:
    """Return task and tags without personal data; what is numbers alone may look like it and is none."""
    kinds = _kinds(rules)
    if not kinds:
        return told
    known: dict[str, dict[str, int]] = {}

    def change(text: str) -> str:
        return text if _NUMBERS.fullmatch(text) else redact(text, find_pii(text, kinds), known)

    task = None if told.task is None else change(told.task)
    return Told(task=task, tags={name: change(text) for name, text in told.tags.items()})


def refusal(rule: RuleSettings) -> ApiError:
    """403 with what the rule says; the client learns which rule it was, and not how it is written."""
    message = sentence(
        str(rule.block),
        allowed="a request on which this rule does not hold",
        got=f"rule {rule.name}",
        do="change the request, or ask whoever runs this gateway",
    )
    return ApiError(403, message, code=BLOCKED, kind="permission_error")


def _kinds(rules: tuple[RuleSettings, ...]) -> tuple[str, ...]:
    wanted = {kind for rule in rules for kind in rule.redact}
    return KINDS if ALL_PII in wanted else tuple(sorted(wanted))
