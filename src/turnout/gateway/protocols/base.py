"""This module states what the gateway asks of an API: how to read a request, and how to write back.

A protocol holds no state: one instance serves all requests. What a stream needs to remember lives in its
scanner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from turnout.gateway.errors import ApiError
from turnout.gateway.heard import chars_of_answer
from turnout.gateway.providers.base import Reply
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.translate.events import Translator
from turnout.gateway.wire import ChatRequest, estimate_tokens


class Protocol(ABC):
    """One API of the gateway."""

    name: ClassVar[str]
    """The word for it in `Call.protocol`: who speaks it passes bytes on, who does not translates."""
    path: ClassVar[str]
    """Where clients post."""
    ping: ClassVar[bytes] = b": ping\n\n"
    """What may stand between two events and says nothing."""
    is_routed: ClassVar[bool] = True
    """Whether a router may choose who answers; else a request names its model."""

    @abstractmethod
    def parse(self, body: bytes) -> ChatRequest:
        """Read a request; raises `ApiError` (400) that names the field at fault."""

    @abstractmethod
    def scanner(self, request: ChatRequest) -> Scanner:
        """Return what reads along with the stream that answers a request."""

    @abstractmethod
    def read_answer(self, reply: Reply) -> tuple[UsageCount | None, int | None]:
        """Return the usage that a whole answer reports.

        Where it reports no output, the second is the answer's length in tokens, as its text suggests.
        """

    def made(self, body: bytes) -> tuple[str, ...]:
        """Return the names of what the upstream keeps of a whole answer (`ChatRequest.follows`)."""
        return ()

    def unfinished(self, body: bytes) -> str | None:
        """Return the name of a whole answer that the upstream still works on; None where it is complete."""
        return None

    def to_chat(self, request: ChatRequest) -> ChatRequest:
        """Return the request in chat, for a provider that does not speak this API; raises `Fault`."""
        return request

    def from_chat(self, reply: Reply, request: ChatRequest, upstream: str) -> Reply:
        """Return a chat reply, an error or a stream too, in this API.

        `request` is the client's own, `upstream` is named in faults.
        """
        return reply

    def writer(self, request: ChatRequest) -> Translator | None:
        """Return what writes a chat stream in this API; None where that is what it is."""
        return None

    @abstractmethod
    def error_reply(self, error: ApiError) -> Reply:
        """Return an error of the gateway's own, in the words of this API."""

    @abstractmethod
    def error_event(self, message: str, *, code: str) -> bytes:
        """Return the event that ends a stream that was cut."""


def said_tokens(usage: UsageCount | None, body: bytes) -> int | None:
    """Return the tokens that a whole answer's text suggests, where its usage knows of none.

    A text that took no tokens is not believed: some servers fill in zeros.
    """
    if usage is not None and usage.completion_tokens:
        return None
    return estimate_tokens(chars_of_answer(body))
