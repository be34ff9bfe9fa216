"""This module tells whose fault a client error of an upstream is: the request's, or our account's there.

The key is the provider's own, never the client's. So what is wrong with it, with its credit or with what it
may use concerns one candidate, and another one can be asked.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Literal

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError, Headers
from turnout.gateway.providers.base import Fault

logger = logging.getLogger(__name__)

Blame = Literal["request", "account", "model", "time"]

ACCOUNT = (401, 402, 403, 407)
"""Statuses about who asks."""

_KEY = re.compile(rb"API_KEY_INVALID|(?:invalid|incorrect) api key|credit balance", re.IGNORECASE)
"""Keys and credit in a 400, as Gemini and Anthropic have it."""
_CONTENT = re.compile(rb"moderat|flagged|content.?(?:polic|filter)|safety|guardrail", re.IGNORECASE)
"""A 403 about what was asked, as OpenRouter has it."""
_TOO_LONG = re.compile(
    r"context.?(?:length|window)|maximum context|prompt is too long|input is too long"
    r"|too many (?:input )?tokens"
    r"|input token count|request_too_large|max_model_len|exceeds? the (?:available|model)",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(
    r"unsupported_(?:parameter|value)|unsupported (?:parameter|value)|(?:is|are) not supported|not support"
    r"|content.?(?:polic|filter)|moderation|safety|flagged|guardrail",
    re.IGNORECASE,
)
"""What one model does not take, and another one may: a parameter, or what was asked."""
_STATUSES = range(400, 600)
_MODEL = re.compile(r"model|deployment|endpoint", re.IGNORECASE)
_BEGINNING_BYTES = 600


def blame(status: int, body: bytes) -> Blame:
    """Return what is at fault, by a status below 500 and the body that came with it."""
    beginning = body[:_BEGINNING_BYTES]
    if status in ACCOUNT:
        return "request" if status == 403 and _CONTENT.search(beginning) else "account"
    if status == 400 and _KEY.search(beginning):
        return "account"
    if status == 404:
        told = _told(body)
        # Without an error object it is no answer of the API, but of a server that knows no such path.
        return "model" if told is None or _MODEL.search(told) else "request"
    return "time" if status == 408 else "request"


Limit = Literal["length", "kind"]


def own_limit(status: int, body: bytes) -> Limit | None:
    """Return the limit of its own for which a model refuses a request: another one may take it.

    `length` for one that is too long, `kind` for a parameter or a content; None for what nobody would take.
    """
    if status == 413:
        return "length"
    if status not in (400, 403, 422, 451):
        return None
    told = _told(body) or body[:_BEGINNING_BYTES].decode("utf-8", "replace")
    if _TOO_LONG.search(told):
        return "length"
    return "kind" if status == 451 or _NOT_TAKEN.search(told) else None


def lacks_path(status: int, body: bytes) -> bool:
    """Whether a server has no such path: its error has no word for what is not found, and no field."""
    if status in (405, 501):
        return True
    if status != 404:
        return False
    error = _error(body)
    return not isinstance(error, dict) or not (isinstance(error.get("code"), str) or error.get("param"))


def told_status(body: bytes) -> int | None:
    """Return the status that an error would have had which came as a 200; None for what is no error.

    Some servers, and proxies before them, say 200 before they know how an answer ends.
    """
    if b'"error"' not in body:
        return None
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    error, choices = told.get("error"), told.get("choices")
    is_error = bool(error) or "error" in (told.get("object"), told.get("type"))
    if not is_error and isinstance(choices, list):
        is_error = any(isinstance(one, dict) and one.get("finish_reason") == "error" for one in choices)
    if not is_error:
        return None
    code = (error if isinstance(error, dict) else told).get("code")
    return code if isinstance(code, int) and code in _STATUSES else 502


def own_fault(name: str, status: int, body: bytes, model: str = "") -> Fault | None:
    """Return the fault of a provider for a client error that is no client's, else None.

    Nothing that the upstream says of our key is shown, but for its word for the error in the log.
    """
    cause = blame(status, body)
    if cause == "request":
        return None
    logger.warning("the upstream %r answered %d (%s)", name, status, _word(body))
    if cause == "time":
        what, allowed = f"the upstream {name!r} gave up on the request", "an answer"
        error = _error_of(504, "upstream_timeout", what, allowed, status, "ask again")
        return Fault(error, may_retry=True, is_charge_unknown=True)
    if cause == "model":
        what = f"the upstream {name!r} does not have the model {model!r}, or the API that was asked"
        do = f"check the candidate's model, and base_url and apis of providers.{name}"
        return Fault(_error_of(502, "upstream_no_model", what, "a model that it serves", status, do))
    what = f"the upstream {name!r} does not let this gateway in"
    allowed, do = "a key with credit that may use the model", f"check providers.{name}"
    return Fault(_error_of(502, "upstream_refused", what, allowed, status, do))


def limited(name: str, body: bytes, headers: Headers) -> ApiError:
    """Return what a client is told of an upstream's rate limit, with how long to wait.

    The limit is that of our account there, and what the upstream says of it may name whose that is.
    """
    logger.warning("the upstream %r limits its rate (%s)", name, _word(body))
    message = sentence(
        f"the upstream {name!r} limits how much this gateway may ask",
        allowed="a request after the time that retry-after says, where it is there",
        got="status 429",
        do="ask again later",
    )
    told = [header for header in headers if header[0] != b"content-type"]
    return ApiError(429, message, code="upstream_rate_limited", kind="rate_limit_error", headers=told)


def _error_of(status: int, code: str, what: str, allowed: str, got: int, do: str) -> ApiError:
    message = sentence(what, allowed=allowed, got=f"status {got}", do=do)
    return ApiError(status, message, code=code, kind="timeout_error" if status == 504 else "upstream_error")


def _word(body: bytes) -> str:
    """Return an error's word for itself; its message may tell of keys, and is for nobody."""
    error = _error(body)
    if not isinstance(error, dict):
        return "without a word"
    word = error.get("code") or error.get("type") or error.get("status")
    return str(word)[:80] if isinstance(word, str | int) else "without a word"


def _told(body: bytes) -> str | None:
    """Return what an error says; None where the body is none."""
    error = _error(body)
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return None
    return " ".join(str(error.get(name) or "") for name in ("message", "code", "type", "param"))


def _error(body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, dict):
        return None
    return value.get("error", value if "message" in value else None)
