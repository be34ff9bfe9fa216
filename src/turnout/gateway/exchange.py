"""This module holds one request on its way through the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from turnout.gateway.account import Account
from turnout.gateway.admission import Hold
from turnout.gateway.breakers import Pass
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.parts import Parts
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.rules import Ruling
from turnout.gateway.wire import ChatRequest

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from turnout.gateway.keepalive import KeepAlive


@final
class Exchange:
    """One request and its answer.

    Parameters
    ----------
    parts:
        The gateway as it was when the request came in.
    protocol:
        The API that the client speaks.
    scope, receive, send:
        The connection.
    """

    __slots__ = (
        "account",
        "deadline_s",
        "hold",
        "keep",
        "leave",
        "parsed",
        "parts",
        "protocol",
        "receive",
        "outcome",
        "ruling",
        "scope",
        "send",
        "span",
        "unfinished",
        "unruled",
    )

    def __init__(
        self, *, parts: Parts, protocol: Protocol, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.parts = parts
        self.protocol = protocol
        self.scope = scope
        self.receive = receive
        self.send = send
        self.account = Account(
            ledger=parts.ledger, clock=parts.clock, keep_text=parts.config.ledger.keep_text
        )
        self.parsed: ChatRequest | None = None
        self.unruled: ChatRequest | None = None
        """The request as the client sent it, where a rule has changed it."""
        self.deadline_s = math.inf
        """When the first byte must be there, by the event loop's clock."""
        self.ruling: Ruling | None = None
        """What rules put in force; None where none holds."""
        self.leave: Pass | None = None
        """The leave of the call that answered, whose breaker hears how the answer ends."""
        self.keep: KeepAlive | None = None
        """What keeps a silent stream alive."""
        self.hold: Hold | None = None
        """What the request has reserved of its key's budget and rates."""
        self.unfinished: str | None = None
        """What the upstream still works on when the request has been answered."""
        self.span: Span | None = None
        """What OpenTelemetry is told of the request, once an upstream was told of it."""
        self.outcome: tuple[int, str | None] = 200, None
        """Status and error for its row."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The request's headers, names in lower case."""
        headers: Sequence[tuple[bytes, bytes]] = self.scope["headers"]
        return headers

    @property
    def request(self) -> ChatRequest:
        """The request, once it is parsed; a step may put another in its place."""
        if self.parsed is None:
            raise RuntimeError("a request is parsed before the steps that read it")
        return self.parsed

    @request.setter
    def request(self, request: ChatRequest) -> None:
        self.parsed = self.account.request = request

    def end(self, status: int, error: str | None = None) -> None:
        """Write the row, or have it wait for what is unfinished."""
        if self.unfinished is None:
            self.account.end(status, error)
        else:
            self.outcome = status, error

    @property
    def as_sent(self) -> ChatRequest:
        """The request before any rule changed it: what a client sticks by must not be taken out of it."""
        return self.request if self.unruled is None else self.unruled
