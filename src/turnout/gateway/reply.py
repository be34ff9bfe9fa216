"""This module writes responses: the headers that say who answered and why, and the body as it came."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from turnout.gateway.account import Account
from turnout.gateway.disconnect import Send
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.base import Reply
from turnout.gateway.quick_cycle import QuickCycle, quick_cycle_of

_JSON = (b"content-type", b"application/json")
_ESTIMATED = (b"x-turnout-usage-estimated", b"true")


def reply_headers(account: Account) -> Headers:
    """Return the headers that say who answered and why, as far as the request came."""
    headers = [(b"x-turnout-decision-id", account.decision_id.encode()), *account.added_headers]
    if account.rule is not None:
        headers.append((b"x-turnout-rule", header_text(account.rule)))
    selection = account.selection
    if selection is None:
        return headers
    chosen = selection.ranked[0]
    served = chosen if account.served is None else account.served
    headers.append((b"x-turnout-decision-us", b"%d" % round(selection.decision_s * 1e6)))
    is_answered = account.served is not None or (account.status or 0) < 400
    headers += _of_choice(served.name if is_answered else None, selection.reason, selection.propensity)
    if served is not chosen or not is_answered:
        headers.append((b"x-turnout-chosen", header_text(chosen.name)))
    if account.attempts > 1:
        headers.append((b"x-turnout-attempts", b"%d" % account.attempts))
    if account.provider is not None:
        headers.append((b"x-turnout-provider", header_text(account.provider)))
    if account.is_replay:
        headers.append((b"x-turnout-replay", b"true"))
    return headers


async def send_body(send: Send, reply: Reply, headers: Headers, *, is_estimated: bool) -> None:
    """Send a whole reply."""
    told = [*reply.headers, *headers, (b"content-length", b"%d" % len(reply.body))]
    if is_estimated:
        told.append(_ESTIMATED)
    cycle = quick_cycle_of(send)
    if cycle is not None and cycle.begin(reply.status, told):
        cycle.put(reply.body, is_last=True)
        return
    await send({"type": "http.response.start", "status": reply.status, "headers": told})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


async def start_events(
    send: Send, reply: Reply, headers: Headers, *, is_estimated: bool
) -> QuickCycle | None:
    """Open a response of server-sent events; nothing between here and the client shall buffer it.

    Returns what takes them without a message for each, where there is such a thing.
    """
    told = [*reply.headers, *headers, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    if is_estimated:
        told.append(_ESTIMATED)
    cycle = quick_cycle_of(send)
    if cycle is not None and cycle.begin(reply.status, told):
        return cycle
    await send({"type": "http.response.start", "status": reply.status, "headers": told})
    return None


def error_reply(error: ApiError) -> Reply:
    """Return an error of the gateway's own as OpenAI's clients read it."""
    return Reply(status=error.status, headers=[_JSON, *error.headers], body=error.body())


def json_reply(value: object, *, status: int = 200) -> Reply:
    """Return a value as a JSON document."""
    return Reply(status=status, headers=[_JSON], body=msgspec.json.encode(value))


async def send_error(send: Send, error: ApiError, headers: Headers) -> None:
    """Send an error of the gateway's own."""
    await send_body(send, error_reply(error), headers, is_estimated=False)


@lru_cache(maxsize=1024)
def _of_choice(name: str | None, reason: str, propensity: float) -> Headers:
    return [
        *([] if name is None else [(b"x-turnout-model", header_text(name))]),
        (b"x-turnout-reason", header_text(reason)),
        (b"x-turnout-propensity", f"{propensity:.6g}".encode()),
    ]


@lru_cache(maxsize=1024)
def header_text(text: str) -> bytes:
    """Return a header value: visible ASCII, with anything else as an escape."""
    return text.encode("ascii", "backslashreplace").translate(_PRINTABLE)


_PRINTABLE = bytes(byte if 32 <= byte < 127 else 32 for byte in range(256))
