"""This module reads a request in its API's words, and takes out what it says to the gateway alone.

A dial, a task and tags may stand in the member `metadata.turnout`, for clients that cannot set headers. It is
removed before anybody upstream sees it; other metadata stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from turnout.core.budget import Goal
from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.number import term_of
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.select import DIALS
from turnout.gateway.told import MEMBERS, NOTHING, Told, told_by, told_in
from turnout.gateway.wire import ChatRequest, Members, render

FIELD = "metadata.turnout"
"""Where a dial, a task and tags may stand in a body."""

_NAME = "turnout"
_TERMS = tuple(DIALS.values())
_KNOWN = (*_TERMS, *MEMBERS)
_decode_members = msgspec.json.Decoder(Members).decode


def read_request(
    protocol: Protocol, body: bytes, alias: str, headers: Sequence[tuple[bytes, bytes]]
) -> ChatRequest:
    """Return the request, which asks for `alias` where it names no model and need not.

    What headers tell comes before what the body tells. Raises `ApiError` (400) that names the field at fault.
    """
    request = _without_own_field(protocol.parse(body))
    told = told_by(headers).over(request.told)
    if request.model and told is request.told:
        return request
    return msgspec.structs.replace(request, model=request.model or alias, told=told)


def _without_own_field(request: ChatRequest) -> ChatRequest:
    """Return the request without `metadata.turnout`, and with what stood there."""
    raw = request.members.get("metadata")
    # A name may be spelt with escapes.
    if raw is None or (b'"turnout"' not in bytes(raw) and b"\\" not in bytes(raw)):
        return request
    try:
        metadata = _decode_members(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return request  # no object: the upstream will say so
    if _NAME not in metadata:
        return request
    goal, told = _own(metadata.pop(_NAME))
    members = dict(request.members)
    if metadata:
        members["metadata"] = msgspec.Raw(render(metadata))
    else:
        del members["metadata"]
    return msgspec.structs.replace(request, members=members, dial=goal, told=told)


def _own(raw: msgspec.Raw) -> tuple[Goal | None, Told]:
    """Return the dial, and task and tags; a member that is misspelt is refused, as a header is."""
    value: Any = msgspec.json.decode(raw)
    if isinstance(value, str):
        # Metadata of OpenAI's clients are texts.
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise _wrong(value) from None
    if value is None:
        return None, NOTHING
    if not isinstance(value, dict):
        raise _wrong(value)
    for name in value:
        if name not in _KNOWN:
            what = f"the field '{FIELD}.{name[:80]}' is unknown"
            message = sentence(what, allowed=", ".join(_KNOWN), do=did_you_mean(name[:80], _KNOWN))
            raise ApiError(400, message, code="bad_metadata", param=FIELD)
    terms = {name: number for name, number in value.items() if name in _TERMS}
    return (_goal(terms) if terms else None), told_in(value, FIELD)


def _goal(terms: dict[str, Any]) -> Goal:
    if any(isinstance(number, bool) for number in terms.values()):
        raise _wrong(terms)
    try:
        return Goal(**{name: term_of(n) if isinstance(n, str) else float(n) for name, n in terms.items()})
    except InputError as error:
        message = f"the field {FIELD!r} is wrong; {error}; keep one term, within its range"
        raise ApiError(400, message, code="bad_metadata", param=FIELD) from error
    except (TypeError, ValueError):
        raise _wrong(terms) from None


def _wrong(value: Any) -> ApiError:
    message = sentence(
        f"the field {FIELD!r} is wrong",
        allowed=f"an object with one of {', '.join(_TERMS)} and a number, with 'task' and 'tags', "
        "or a text that spells one",
        got=value,
        do='send for example {"quality_floor": 0.95}',
    )
    return ApiError(400, message, code="bad_metadata", param=FIELD)
