"""This module maps failures to HTTP: a status and the four keys that every OpenAI client reads."""

from __future__ import annotations

from typing import Literal

import msgspec

from turnout.core.errors import TurnoutError, did_you_mean, sentence

Headers = list[tuple[bytes, bytes]]

Kind = Literal[
    "insufficient_quota",
    "invalid_request_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
    "timeout_error",
    "upstream_error",
]


class ApiError(TurnoutError):
    """A request that ends in an error the client is told about.

    Parameters
    ----------
    status:
        The HTTP status.
    message:
        One sentence, built by `core.errors.sentence`.
    code:
        A word for programs; also the `error` of the ledger row.
    param:
        The field or header at fault, where there is one.
    kind:
        The `type` of the OpenAI error object.
    headers:
        Further response headers, such as `retry-after`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        kind: Kind = "invalid_request_error",
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = headers or []

    def body(self) -> bytes:
        """Return the JSON body: an `error` object with message, type, param and code."""
        return error_body(self.message, kind=self.kind, param=self.param, code=self.code)


def error_body(message: str, *, kind: str, param: str | None, code: str) -> bytes:
    """Encode the OpenAI error object; all four keys are always there."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def unknown_path(path: str, known: list[str]) -> ApiError:
    """404 for a path that is not served."""
    plain = "/" + "/".join(part for part in path.split("/") if part)
    is_near = plain != path and any(plain == one.partition(" ")[2] for one in known)
    message = sentence(
        "no such path",
        allowed=", ".join(known),
        got=path,
        do=f"write {plain}, with single slashes" if is_near else "the base URL of a client ends in /v1",
    )
    return ApiError(404, message, code="unknown_url")


def wrong_method(path: str, method: str, allowed: str) -> ApiError:
    """405 with the `allow` header."""
    do = f"send a {allowed} request"
    message = sentence(f"the method is not supported at {path}", allowed=allowed, got=method, do=do)
    return ApiError(405, message, code="method_not_allowed", headers=[(b"allow", allowed.encode())])


def unknown_model(model: str, known: list[str]) -> ApiError:
    """404 in OpenAI's words, with the nearest names."""
    message = sentence(
        f"The model {model[:200]!r} does not exist",
        allowed="a name that GET /v1/models lists",
        do=did_you_mean(model[:200], known),
    )
    return ApiError(404, message, code="model_not_found", param="model")


def body_too_large(limit_mb: float, size_bytes: int) -> ApiError:
    """413 that names the setting; `size_bytes` is what was read before the reading stopped."""
    message = sentence(
        "the request body is too large",
        allowed=f"at most {limit_mb:g} MB",
        got=f"{size_bytes / 1e6:.1f} MB or more",
        do="send less, or raise server.max_body_mb",
    )
    return ApiError(413, message, code="request_too_large")


def internal_error(decision_id: str) -> ApiError:
    """500 that names the decision and nothing of the inside; the traceback is in the log."""
    message = sentence(
        f"the gateway failed on the request {decision_id}",
        allowed="any request of this form: the fault is the gateway's",
        do="look for this id in the gateway's log",
    )
    return ApiError(500, message, code="internal_error", kind="server_error")
