"""This module says what a live environment asks of a client, and is one for OpenAI-compatible endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, sentence

Messages = tuple[Mapping[str, str], ...]

_CUT = frozenset({"length", "content_filter"})

Hear = Callable[[str], Awaitable[None]]
"""Is given a text while it arrives, piece by piece."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request to one candidate."""

    candidate: Candidate
    messages: Messages | None
    """Chat messages; None stands for the conversation that the client itself holds."""
    max_output_tokens: int
    timeout_s: float
    """Seconds after which nobody waits any more."""
    stop: tuple[str, ...] = ()
    hear: Hear | None = None
    """Who would like the text while it arrives; a client that gets all of it at once leaves this alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What came back. None stands for unknown; 0 tokens say that nothing is charged."""

    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    error: str | None = None
    """Why no answer came."""
    finish: str | None = None
    """Why the model stopped, where that was before its own end: `length` or `content_filter`."""


def cut_short(finish: object) -> str | None:
    """Return the finish reason of an answer that is not whole; None for one that is."""
    return finish if isinstance(finish, str) and finish in _CUT else None


class AsyncClient(Protocol):
    """Asks a model without holding up the event loop; it may raise what it likes."""

    async def ask(self, ask: Ask, /) -> Told:
        """Return what the model told."""


class Client(Protocol):
    """Asks a model and waits; it keeps `timeout_s` itself, and may raise what it likes."""

    def ask(self, ask: Ask, /) -> Told:
        """Return what the model told."""


@final
class ChatCompletions:
    """A client over an object with `chat.completions.create`, such as `openai.AsyncOpenAI` or its like.

    Parameters
    ----------
    client:
        The object; an asynchronous one for `LiveEnvironment`.
    max_tokens_field:
        Request field of the token budget; older servers know `max_tokens`.
    model_of:
        What the server calls a candidate, effort and adapter included: `attrgetter("name")` for a gateway
        of turnout, `lambda candidate: candidate.adapter or candidate.model` for a server that knows
        adapters as models. By default that is its model, the effort is sent as `reasoning_effort`, and a
        candidate with an adapter raises `InputError`.
    """

    def __init__(
        self,
        client: Any,
        *,
        max_tokens_field: str = "max_completion_tokens",
        model_of: Callable[[Candidate], str] | None = None,
    ) -> None:
        self.client = client
        self.max_tokens_field = max_tokens_field
        self.model_of = model_of

    async def ask(self, ask: Ask) -> Told:
        """Return what the model told; raises what the object raises."""
        return told_of(await self.client.chat.completions.create(**self.arguments(ask)))

    def arguments(self, ask: Ask) -> dict[str, Any]:
        """Return the arguments of `create`; raises `InputError` where there are no messages."""
        if ask.messages is None:
            raise InputError(sentence("ChatCompletions: messages", allowed="a list", got=None))
        arguments: dict[str, Any] = {
            "model": self._model(ask.candidate),
            "messages": [dict(message) for message in ask.messages],
            self.max_tokens_field: ask.max_output_tokens,
            "timeout": ask.timeout_s,
        }
        if ask.stop:
            arguments["stop"] = list(ask.stop)
        if self.model_of is None and ask.candidate.effort is not None:
            arguments["reasoning_effort"] = ask.candidate.effort
        return arguments

    def _model(self, candidate: Candidate) -> str:
        if self.model_of is not None:
            return self.model_of(candidate)
        if candidate.adapter is not None:
            what, allowed = "ChatCompletions: a candidate", "no adapter, unless model_of names it"
            raise InputError(sentence(what, allowed=allowed, got=candidate.name, do="pass model_of"))
        return candidate.model


@final
class BlockingChatCompletions:
    """`ChatCompletions` for an object that waits, such as `openai.OpenAI`."""

    def __init__(
        self,
        client: Any,
        *,
        max_tokens_field: str = "max_completion_tokens",
        model_of: Callable[[Candidate], str] | None = None,
    ) -> None:
        self._inner = ChatCompletions(client, max_tokens_field=max_tokens_field, model_of=model_of)

    def ask(self, ask: Ask) -> Told:
        """Return what the model told; raises what the object raises."""
        return told_of(self._inner.client.chat.completions.create(**self._inner.arguments(ask)))


def told_of(completion: Any) -> Told:
    """Return what a chat completion told, with its usage where it has one."""
    usage = getattr(completion, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    counts: dict[str, Any] = {
        "input_tokens": getattr(usage, "prompt_tokens", None),
        "output_tokens": getattr(usage, "completion_tokens", None),
        "cached_tokens": getattr(details, "cached_tokens", None) or 0,
    }
    choices = getattr(completion, "choices", None) or [None]
    text = getattr(getattr(choices[0], "message", None), "content", None)
    if text is None:
        return Told(error="the reply holds no text", **counts)
    return Told(text=text, finish=cut_short(getattr(choices[0], "finish_reason", None)), **counts)
