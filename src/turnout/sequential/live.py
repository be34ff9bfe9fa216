"""This module asks real models: any OpenAI-compatible endpoint, through a client that is handed in.

No socket is opened here. A client turns an `Ask` into a `Told` (see `live_client`). Failures, time-outs among
them, come back as observations, and every call is charged once: by its reported usage, also where it failed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

from turnout.core.candidate import Candidate, check_unique
from turnout.core.errors import InputError, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.sequential.actions import Call, Think
from turnout.sequential.contracts import AsyncEnvironment, Environment, elapsed_s, no_thinker
from turnout.sequential.live_client import Ask, AsyncClient, Client, Hear, Messages, Told
from turnout.sequential.trace import Observed, Thought, Trace

_BYTES_PER_TOKEN = 2
_MESSAGE_TOKENS = 16
_HAIR_S = 2e-3
"""By which timers may fire before their time: a call that was given all the time left has used it up."""
_NO_TIME = "there is no time left for it"


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

    def elapsed_s(self, trace: Trace) -> float:
        """Return the seconds since the start, the sequencer's own among them, by the clock."""
        return max(_since(trace) + _HAIR_S, elapsed_s(trace))

    def accept(self, query: Query) -> Query:
        """Return the query; raises `InputError` for one without a text, unless a client holds its words."""
        if query.text is None and self.input_tokens is None:
            raise InputError(
                sentence(f"a live environment: query {query.id!r}", allowed="a text to ask", got=None)
            )
        return query

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

    def _of_thought(
        self, request: Think, thinker: Candidate, timeout_s: float, hear: Hear | None = None
    ) -> Ask:
        return Ask(
            candidate=thinker,
            messages=request.messages,
            max_output_tokens=request.max_output_tokens,
            timeout_s=timeout_s,
            stop=request.stop,
            hear=hear,
        )

    def _time_left_s(self, trace: Trace) -> float:
        deadline_s = trace.bounds.deadline_s
        if deadline_s is None:
            return self.timeout_s
        # Without the hair: taken from both, it would be no allowance for a timer that is early.
        return min(self.timeout_s, deadline_s - max(_since(trace), elapsed_s(trace)))


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
    listen:
        Asked before each thought who would like it while it is written; None for nobody.
    """

    def __init__(
        self, *, client: AsyncClient, listen: Callable[[Trace], Hear | None] | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.client = client
        self.listen = listen

    async def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the candidates; a failure is an observation."""
        timeout_s = self._time_left_s(trace)
        asks = [self._of_call(call, trace, timeout_s) for call in calls]
        told = await asyncio.gather(*(self._ask(ask) for ask in asks))
        return tuple(_observed(call, *one) for call, one in zip(calls, told, strict=True))

    async def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's model write on; a failure is a thought with an error."""
        if self.thinker is None:
            raise no_thinker(self)
        timeout_s = self._time_left_s(trace)
        hear = None if self.listen is None else self.listen(trace)
        return _thought(*await self._ask(self._of_thought(request, self.thinker, timeout_s, hear)))

    async def _ask(self, ask: Ask) -> tuple[Ask, Told, float]:
        if ask.timeout_s <= 0:
            return ask, Told(error=_NO_TIME, input_tokens=0, output_tokens=0), 0.0
        started_s = time.perf_counter()
        limit = asyncio.timeout(ask.timeout_s)
        try:
            async with limit:
                told = _sound(await self.client.ask(ask))
        except TimeoutError as error:
            # Where the client gave up by itself, that is no word on the time that is left.
            is_ours = limit.expired()
            told = Told(error=f"no answer within {ask.timeout_s:.3g} s") if is_ours else _failed(error)
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
        return tuple(
            _observed(call, *self._ask(self._of_call(call, trace, self._time_left_s(trace))))
            for call in calls
        )

    def think(self, request: Think, trace: Trace) -> Thought:
        """Let the policy's model write on; a failure is a thought with an error."""
        if self.thinker is None:
            raise no_thinker(self)
        timeout_s = self._time_left_s(trace)
        return _thought(*self._ask(self._of_thought(request, self.thinker, timeout_s)))

    def _ask(self, ask: Ask) -> tuple[Ask, Told, float]:
        if ask.timeout_s <= 0:
            return ask, Told(error=_NO_TIME, input_tokens=0, output_tokens=0), 0.0
        started_s = time.perf_counter()
        try:
            told = _sound(self.client.ask(ask))
        except Exception as error:  # noqa: BLE001 (the edge: a client that was handed in raises what it likes)
            told = _failed(error)
        return ask, told, time.perf_counter() - started_s


def _since(trace: Trace) -> float:
    """Return the seconds since a trace began, by the clock."""
    return time.perf_counter() - trace.began_s


def _sound(told: Told) -> Told:
    """Return what a client told as far as it can be: no text is an error, what is no count is unknown.

    Half a surrogate pair, which no request can carry on, becomes a question mark.
    """
    text: object = told.text
    known = [_count(told.input_tokens), _count(told.output_tokens)]
    return replace(
        told,
        text=text.encode(errors="replace").decode() if isinstance(text, str) else "",
        error=told.error if isinstance(text, str) or told.error is not None else "the reply holds no text",
        input_tokens=known[0],
        output_tokens=known[1],
        cached_tokens=min(_count(told.cached_tokens) or 0, known[0] or 0),
    )


def _count(told: object) -> int | None:
    """Return a number of tokens; None for what is none, such as a text or a NaN."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told < math.inf:
        return None
    return int(told)


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
        finish=told.finish,
    )


def _thought(ask: Ask, told: Told, latency_s: float) -> Thought:
    return Thought(
        text=told.text if told.error is None else "",
        usd=_usd(ask, told),
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        latency_s=latency_s,
        error=told.error,
        finish=told.finish,
    )
