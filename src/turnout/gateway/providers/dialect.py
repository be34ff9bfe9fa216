"""This module states what an upstream's language is: where a request goes, and how both are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.errors import Headers
from turnout.gateway.providers.base import Call, KeptCall, Reply
from turnout.gateway.providers.opening import Opening, read_opening
from turnout.gateway.translate.events import Translator


@final
class Outgoing(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One request as it is sent."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Dialect(ABC):
    """The language of a kind of upstream. It holds no state of a request."""

    speaks: frozenset[str] = frozenset({"chat"})
    """The APIs that a call may be written in: bytes of its own language are passed on, others translated."""
    rewrites: ClassVar[bool] = True
    """Whether a request is taken apart and written anew, which takes long for a long one."""
    lists_cache_writes: ClassVar[bool] = False
    """Whether writes to a prompt cache are reported, and cost what Anthropic's price list says."""
    stream_type: ClassVar[str] = "text/event-stream"
    """Content type of the upstream's streams."""

    @abstractmethod
    def outgoing(self, call: Call) -> Outgoing:
        """Return what to send; raises `Fault` for a request that cannot be said in this language."""

    def kept(self, call: KeptCall) -> Outgoing | None:
        """Return what to send about what is kept; None where nothing of this kind is."""
        return None

    def lists_cache_reads(self, model: str) -> bool:
        """Whether what a model reads from there does, too; on Bedrock models of others have other prices."""
        return False

    def model_name(self, candidate: Candidate) -> str:
        """Return the upstream's name for a candidate that the configuration gives no other name."""
        return candidate.model

    def added(self, call: Call) -> Headers:
        """Return the headers of an answer that say what this side does where the upstream's API cannot."""
        return []

    def whole(self, call: Call, reply: Reply) -> Reply:
        """Return a whole reply, an error too, in the language of the call."""
        return reply

    def translator(self, call: Call) -> Translator | None:
        """Return what translates a stream into the language of the call; None passes it on as it is."""
        return None

    def opening(self, held: bytes) -> Opening:
        """Return what the first bytes of a stream say."""
        return read_opening(held)
