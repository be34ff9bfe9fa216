"""This module says which headers of a client go on upstream: its trace, and betas of OpenAI's.

A trace is that of W3C's Trace Context (https://www.w3.org/TR/trace-context/): one `traceparent`, and a
`tracestate` that may come in several headers and says nothing without it. Where the gateway tells
OpenTelemetry of requests, its own span stands there instead (`Telemetry.trace_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange

Pairs = tuple[tuple[bytes, bytes], ...]

_PARENT, _STATE, _BETA = b"traceparent", b"tracestate", b"openai-beta"
_PASSED = frozenset((_PARENT, _STATE, _BETA))


def passed_on(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Pairs, Pairs]:
    """Return a client's trace, for every upstream, and the betas that it asks for, for OpenAI's API alone."""
    found = [pair for pair in headers if pair[0] in _PASSED]
    return (_trace_in(found), _joined(found, _BETA)) if found else ((), ())


def onward(exchange: Exchange) -> tuple[Pairs, Pairs]:
    """Return trace and betas of a request; the trace is the gateway's own where somebody is told of it."""
    trace, betas = passed_on(exchange.headers)
    telemetry = exchange.parts.telemetry
    return (trace if telemetry is None else telemetry.trace_of(exchange)), betas


def _trace_in(found: list[tuple[bytes, bytes]]) -> Pairs:
    parents = [pair for pair in found if pair[0] == _PARENT]
    return (parents[0], *_joined(found, _STATE)) if len(parents) == 1 else ()


def _joined(found: list[tuple[bytes, bytes]], name: bytes) -> Pairs:
    values = [value for one, value in found if one == name]
    return ((name, b",".join(values)),) if values else ()
