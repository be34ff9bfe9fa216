"""This module makes one call to one candidate and says what came of it, and what it cost or may have."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from dataclasses import dataclass
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.account import new_decision_id
from turnout.gateway.completion import parse_completion
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Call, Fault, Reply
from turnout.gateway.stream import UsageCount
from turnout.gateway.wire import ChatRequest, estimate_tokens, parse_chat, render
from turnout.recording.pool import Member
from turnout.recording.prompts import Messages

_TEMPLATE_TOKENS = 64
"""Tokens beyond a request's own bytes that a chat template may add, in the worst case."""
_MEDIA_TOKENS = 20_000
"""Tokens of an image or a recording that a request names by its address, in the worst case."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How every prompt is asked."""

    max_output_tokens: int = 1024
    """Most tokens of an answer, for a candidate that has no budget of its own."""
    temperature: float | None = None
    """None leaves the provider's own."""
    system: str | None = None
    """A system message before every prompt."""

    def told(self) -> dict[str, str | float | int | None]:
        """Return the settings by name."""
        return dataclasses.asdict(self)

    def request(self, messages: Messages) -> ChatRequest:
        """Return the chat request; raises `ApiError` for messages that are none."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        members: dict[str, msgspec.Raw | bytes] = {
            "model": b'"turnout"',
            "messages": msgspec.json.encode([*head, *messages]),
        }
        if self.temperature is not None:
            members["temperature"] = msgspec.json.encode(self.temperature)
        return parse_chat(render(members))


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What came of one call. None stands for unknown."""

    text: str | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    is_estimated: bool = False
    """Whether some count is no report of the provider's."""
    usd: float | None = None
    charged_usd: float = 0.0
    """What counts against a cap."""
    latency_s: float | None = None
    finish: str | None = None
    may_retry: bool = False
    retry_after_s: float | None = None

    @property
    def is_answer(self) -> bool:
        """Whether something came back that was charged for, even one without text."""
        return self.input_tokens is not None


def digest_of(messages: Messages) -> str:
    """Return sixteen hex digits that name what is asked."""
    return hashlib.sha256(msgspec.json.encode(list(messages))).hexdigest()[:16]


def limited(member: Member, asking: Asking) -> Candidate:
    """Return the candidate with a token budget; a recording knows it by its own name only."""
    candidate = member.candidate
    if member.provider.is_replay or candidate.max_output_tokens is not None:
        return candidate
    return dataclasses.replace(candidate, max_output_tokens=asking.max_output_tokens)


def most_usd(member: Member, request: ChatRequest, asking: Asking) -> float | None:
    """Return the most that a call may cost: a token for every byte of the request, and the whole budget.

    0 for a recording, which charges nobody; None where the price is unknown.
    """
    if member.provider.is_replay:
        return 0.0
    card = member.candidate.price_card
    if card is None:
        return None
    body = bytes(request.members["messages"])
    tokens_in = len(body) + _TEMPLATE_TOKENS
    if request.needs & {"audio", "vision"}:
        tokens_in += _MEDIA_TOKENS * body.count(b'"type"')
    # The first reading may be charged more than a cached one, never less.
    tokens_out = limited(member, asking).max_output_tokens or asking.max_output_tokens
    return card.usd(input_tokens=tokens_in, output_tokens=tokens_out)


async def ask_once(
    member: Member, request: ChatRequest, asking: Asking, *, most: float, timeout_s: float
) -> Said:
    """Ask once; whatever the provider does comes back as what was said."""
    call = Call(
        request=request,
        candidate=limited(member, asking),
        model=member.model,
        decision_id=new_decision_id(time.time()),
    )
    started_s = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            reply = await member.provider.ask(call)
    except TimeoutError:
        error = sentence("no answer came in time", allowed=f"{timeout_s:g} s", do="raise --timeout-s")
        return Said(error=error, charged_usd=most)
    except Fault as fault:
        return Said(
            error=fault.error.message,
            charged_usd=most if fault.is_charge_unknown else 0.0,
            may_retry=fault.may_retry,
            retry_after_s=fault.retry_after_s,
        )
    except ApiError as error:
        return Said(error=error.message)
    latency_s = time.perf_counter() - started_s
    if reply.status != 200:
        said = reply.body[:200].decode("utf-8", "replace")
        return Said(error=f"the provider {member.provider.name!r} refused with status {reply.status}: {said}")
    return _said(member, request, reply, most=most, latency_s=latency_s)


def _said(member: Member, request: ChatRequest, reply: Reply, *, most: float, latency_s: float) -> Said:
    try:
        completion = parse_completion(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Said(error="the provider's answer cannot be read", charged_usd=most)
    if not completion.choices and completion.usage is None:
        said = reply.body[:200].decode("utf-8", "replace")
        return Said(error=f"the provider's answer holds no choice: {said}", charged_usd=most)
    choice = completion.choices[0] if completion.choices else None
    text = None if choice is None or choice.message is None else choice.message.content
    usage = completion.usage or UsageCount()
    tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
    is_estimated = tokens_in is None or tokens_out is None
    if tokens_in is None:
        tokens_in = request.input_tokens
    if tokens_out is None and text is not None:
        tokens_out = estimate_tokens(len(text))
    usd = _usd(member.candidate, tokens_in, tokens_out, usage.cached_tokens)
    is_replay = member.provider.is_replay
    charged = 0.0 if is_replay else most if is_estimated or usd is None else usd
    return Said(
        text=text,
        error=None if text is not None else "the answer holds no text",
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cached_tokens=usage.cached_tokens,
        is_estimated=is_estimated,
        usd=usd,
        charged_usd=charged,
        latency_s=None if is_replay else latency_s,
        finish=choice.finish_reason if choice and isinstance(choice.finish_reason, str) else None,
    )


def _usd(candidate: Candidate, tokens_in: int, tokens_out: int | None, cached: int | None) -> float | None:
    card = candidate.price_card
    if card is None or tokens_out is None:
        return None
    return card.usd(input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached or 0)
