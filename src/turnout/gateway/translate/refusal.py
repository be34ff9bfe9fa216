"""This module refuses what another API cannot say, so that a candidate that can is asked instead."""

from __future__ import annotations

import msgspec

from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Fault

CODE = "not_translatable"
"""Code of the errors of this module."""

NOTHING = "no message with a text but the system's"
"""What is got of a request that OpenAI's models answer all the same."""


def refuse(field: str, language: str, got: bytes | object) -> Fault:
    """Return the fault of a field without a counterpart: 400, and no failure of the upstream's."""
    shown = got.decode("utf-8", "replace") if isinstance(got, bytes) else got
    message = sentence(
        f"the field {field!r} has no counterpart in {language}",
        allowed="a field that both know, or a candidate whose provider speaks the client's API",
        got=shown,
        do="leave it out, or name another model",
    )
    return Fault(ApiError(400, message, code=CODE, param=field), may_fall_back=True, is_failure=False)


def unreadable(field: str, error: Exception) -> Fault:
    """Return the fault of a field that is not what its API says; an upstream of that API may know more."""
    message = sentence(
        f"the field {field!r} is wrong",
        allowed="what the API of the request says",
        got=str(error),
        do="correct it",
    )
    api_error = ApiError(400, message, code="invalid_type", param=field)
    return Fault(api_error, may_fall_back=True, is_failure=False)


def plain(raw: bytes | msgspec.Raw | None) -> object:
    """Return the value of a member that is small; None where it is absent or cannot be read."""
    if raw is None:
        return None
    try:
        value: object = msgspec.json.decode(bytes(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value


def not_spoken(path: str) -> Fault:
    """Return the fault of a provider that does not speak an API at all: 400, and no failure of its own."""
    message = sentence(
        f"the provider of this model does not serve {path}",
        allowed="a model whose provider does",
        do="name another model, or configure a provider of kind 'openai' that has this path among its 'apis'",
    )
    error = ApiError(400, message, code="not_supported", param="model")
    return Fault(error, may_fall_back=True, is_failure=False)
