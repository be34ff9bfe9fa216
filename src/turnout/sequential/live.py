"""This module asks real models: any OpenAI-compatible endpoint, through a client that is handed in.

No socket is opened here. A client turns an `Ask` into a `Told`; `ChatCompletions` does so with an object of the
`openai` package or anything of its shape. Failures, time-outs among them, come back as observations, and every
call is charged once: by its reported usage, also where it failed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from turnout.core.candidate import Candidate, check_unique
from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.sequential.actions import Call, Think
from turnout.sequential.contracts import AsyncEnvironment, Environment, no_thinker
from turnout.sequential.trace import Observed, Thought, Trace

Messages = tuple[Mapping[str, str], ...]

_BYTES_PER_TOKEN = 2
_MESSAGE_TOKENS = 16
_NO_TIME = "there is no time left for it"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What came back. None stands for unknown; 0 tokens say that nothing is charged."""

    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    error: str | None = None
    """Why no answer came."""


class AsyncClient(Protocol):
    """Asks a model without holding up the event loop; it may raise what it likes."""

    async def ask(self, ask: Ask, /) -> Told:
        """Return what the model told."""


class Client(Protocol):
    """Asks a model and waits; it keeps `timeout_s` itself, and may raise what it likes."""

    def ask(self, ask: Ask, /) -> Told:
        """Return what the model told."""


class _Live:
    """What both environments share: who may be asked, at what price, in what words."""

    def __init__(
        self,
        *,
        candidates: Sequence[Candidate],
        thinker: Candidate | None = None,
        timeout_s: float = 60.0,
        max_output_tokens: int = 1024,
        input_tokens: int | None = None,
    ) -> None:
        self._candidates = tuple(candidates)
        check_unique("a live environment: candidates", self._candidates)
        self._by_name = {candidate.name: candidate for candidate in self._candidates}
        self.thinker = thinker
        self.timeout_s = check_number("timeout_s", timeout_s, low=0.0, allow_low=False)
        self.max_output_tokens = check_count("max_output_tokens", max_output_tokens)
        self.input_tokens = input_tokens

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pool."""
        return self._candidates

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the charge in USD of the longest answer; NaN without a price card.

        Input counts at two bytes a token, which is more than tokenizers make of text.
        """
        candidate = self.thinker if isinstance(request, Think) else self._by_name.get(request.candidate)
        card = None if candidate is None else candidate.price_card
        if candidate is None or card is None:
            return math.nan
        output = request.max_output_tokens if isinstance(request, Think) else self.limit(candidate)
        return card.usd(input_tokens=self._most_input(request, trace), output_tokens=output)

    def limit(self, candidate: Candidate) -> int:
        """Return the most output tokens that a candidate is asked for."""
        return candidate.max_output_tokens or self.max_output_tokens

    def _most_input(self, request: Call | Think, trace: Trace) -> int:
        if isinstance(request, Think):
            texts = [message["content"] for message in request.messages]
        elif request.text is not None:
            texts = [request.text]
        elif self.input_tokens is not None:
            return self.input_tokens
        else:
            texts = [trace.query.text or ""]
        return sum(-(-len(text.encode()) // _BYTES_PER_TOKEN) + _MESSAGE_TOKENS for text in texts)

    def _of_call(self, call: Call, trace: Trace, timeout_s: float) -> Ask:
        messages: Messages | None = None
        if call.text is not None or self.input_tokens is None:
            text = trace.query.text if call.text is None else call.text
            messages = ({"role": "user", "content": text or ""},)
        candidate = self._by_name[call.candidate]
        return Ask(
            candidate=candidate,
            messages=messages,
            max_output_tokens=self.limit(candidate),
            timeout_s=timeout_s,
        )

    def _of_thought(self, request: Think, thinker: Candidate, timeout_s: float) -> Ask:
        return Ask(
            candidate=thinker,
            messages=request.messages,
            max_output_tokens=request.max_output_tokens,
            timeout_s=timeout_s,
            stop=request.stop,
        )

    def _time_left_s(self, elapsed_s: float, trace: Trace) -> float:
        deadline_s = trace.bounds.deadline_s
        return self.timeout_s if deadline_s is None else min(self.timeout_s, deadline_s - elapsed_s)


@final
class LiveEnvironment(_Live, AsyncEnvironment):
    """Asks real models without holding up the event loop; the calls of a set run side by side.

    Parameters
    ----------
    client:
        Who carries requests.
    candidates:
        The pool.
    thinker:
        The policy's own model, for a sequencer that thinks.
    timeout_s:
        Seconds a call may take; the deadline of the task's bounds shortens it.
    max_output_tokens:
        Most output tokens of a candidate that has no budget of its own.
    input_tokens:
        Upper estimate of the conversation that the client holds; None where the query's text is all there is.
    """

    def __init__(self, *, client: AsyncClient, **settings: Any) -> None:
        super().__init__(**settings)
        self.client = client

    async def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the candidates; a failure is an observation."""
        timeout_s = self._time_left_s(self.elapsed_s(trace), trace)
        asks = [self._of_call(call, trace, timeout_s) for call in calls]
        told = await asyncio.gather(*(self._ask(ask) for ask in asks))
        return tuple(_observed(call, *one) for call, one in zip(calls, told, strict=True))

    async def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's model write on; a failure is a thought with an error."""
        if self.thinker is None:
            raise no_thinker(self)
        timeout_s = self._time_left_s(self.elapsed_s(trace), trace)
        return _thought(*await self._ask(self._of_thought(request, self.thinker, timeout_s)))

    async def _ask(self, ask: Ask) -> tuple[Ask, Told, float]:
        if ask.timeout_s <= 0:
            return ask, Told(error=_NO_TIME, input_tokens=0, output_tokens=0), 0.0
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(ask.timeout_s):
                told = await self.client.ask(ask)
        except TimeoutError:
            told = Told(error=f"no answer within {ask.timeout_s:.3g} s")
        except Exception as error:  # noqa: BLE001 (the edge: a client that was handed in raises what it likes)
            told = _failed(error)
        return ask, told, time.perf_counter() - started_s


@final
class BlockingEnvironment(_Live, Environment):
    """The same as `LiveEnvironment` for a client that waits; the calls of a set run one after the other."""

    def __init__(self, *, client: Client, **settings: Any) -> None:
        super().__init__(**settings)
        self.client = client

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the candidates; a failure is an observation."""
        elapsed_s = self.elapsed_s(trace)
        seen = []
        for call in calls:
            one = self._ask(self._of_call(call, trace, self._time_left_s(elapsed_s, trace)))
            elapsed_s += one[2]
            seen.append(_observed(call, *one))
        return tuple(seen)

    def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's model write on; a failure is a thought with an error."""
        if self.thinker is None:
            raise no_thinker(self)
        timeout_s = self._time_left_s(self.elapsed_s(trace), trace)
        return _thought(*self._ask(self._of_thought(request, self.thinker, timeout_s)))

    def _ask(self, ask: Ask) -> tuple[Ask, Told, float]:
        if ask.timeout_s <= 0:
            return ask, Told(error=_NO_TIME, input_tokens=0, output_tokens=0), 0.0
        started_s = time.perf_counter()
        try:
            told = self.client.ask(ask)
        except Exception as error:  # noqa: BLE001 (the edge: a client that was handed in raises what it likes)
            told = _failed(error)
        return ask, told, time.perf_counter() - started_s


@final
class ChatCompletions:
    """A client over an object with `chat.completions.create`, such as `openai.AsyncOpenAI` or its like.

    Parameters
    ----------
    client:
        The object; an asynchronous one for `LiveEnvironment`.
    max_tokens_field:
        Request field of the token budget; older servers know `max_tokens`.
    """

    def __init__(self, client: Any, *, max_tokens_field: str = "max_completion_tokens") -> None:
        self.client = client
        self.max_tokens_field = max_tokens_field

    async def ask(self, ask: Ask) -> Told:
        """Return what the model told; raises what the object raises."""
        return told_of(await self.client.chat.completions.create(**self.arguments(ask)))

    def arguments(self, ask: Ask) -> dict[str, Any]:
        """Return the arguments of `create`; raises `InputError` where there are no messages."""
        if ask.messages is None:
            raise InputError(sentence("ChatCompletions: messages", allowed="a list", got=None))
        arguments: dict[str, Any] = {
            "model": ask.candidate.model,
            "messages": [dict(message) for message in ask.messages],
            self.max_tokens_field: ask.max_output_tokens,
            "timeout": ask.timeout_s,
        }
        if ask.stop:
            arguments["stop"] = list(ask.stop)
        if ask.candidate.effort is not None:
            arguments["reasoning_effort"] = ask.candidate.effort
        return arguments


@final
class BlockingChatCompletions:
    """`ChatCompletions` for an object that waits, such as `openai.OpenAI`."""

    def __init__(self, client: Any, *, max_tokens_field: str = "max_completion_tokens") -> None:
        self._inner = ChatCompletions(client, max_tokens_field=max_tokens_field)

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
    choices = getattr(completion, "choices", None) or []
    text = choices[0].message.content if choices else None
    if text is None:
        return Told(error="the reply holds no text", **counts)
    return Told(text=text, **counts)


def _failed(error: Exception) -> Told:
    text = " ".join(str(error).split())[:200]
    return Told(error=f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _usd(ask: Ask, told: Told) -> float:
    """Return the charge in USD; NaN where the usage or the price is not known."""
    if told.input_tokens == 0 and told.output_tokens == 0:
        return 0.0
    card = ask.candidate.price_card
    if card is None or told.input_tokens is None or told.output_tokens is None:
        return math.nan
    return card.usd(
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        cached_tokens=told.cached_tokens,
    )


def _observed(call: Call, ask: Ask, told: Told, latency_s: float) -> Observed:
    return Observed(
        call=call,
        answer=told.text if told.error is None else None,
        usd=_usd(ask, told),
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        latency_s=latency_s,
        error=told.error,
    )


def _thought(ask: Ask, told: Told, latency_s: float) -> Thought:
    return Thought(
        text=told.text if told.error is None else "",
        usd=_usd(ask, told),
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        latency_s=latency_s,
        error=told.error,
    )
