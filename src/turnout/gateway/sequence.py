"""This module serves a request by a sequencer: several calls, one answer, one row, one trace.

The client sees one answer, in its own API. The calls go through the gateway's own providers, every one is
charged once, and the trace is kept whole: without texts, unless `ledger.keep_text` is on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import msgspec

from turnout.core.budget import Goal
from turnout.core.errors import sentence
from turnout.core.query import Query
from turnout.gateway.account import Account
from turnout.gateway.afford import most_output_tokens
from turnout.gateway.dial import goal_of
from turnout.gateway.disconnect import Attended
from turnout.gateway.errors import ApiError
from turnout.gateway.onward import onward
from turnout.gateway.providers.base import Fault
from turnout.gateway.sequence_answer import AnswerSender
from turnout.gateway.sequence_build import Sequence
from turnout.gateway.sequence_client import ProviderClient
from turnout.gateway.sequence_end import answer_of, faults_of, spent_by, trace_row
from turnout.gateway.sequence_most import most_of_sequence
from turnout.gateway.wire import ChatRequest
from turnout.sequential.live import LiveEnvironment
from turnout.sequential.loop import carry_on_async, start
from turnout.sequential.trace import Trace

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange

_BYTES_PER_TOKEN = 2
_REFUSED = {"tools", "logprobs", "vision", "audio"}
_REFUSED_BY_THINKERS = {*_REFUSED, "json"}


class _Part(msgspec.Struct):
    text: str | None = None


class _Said(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


@final
class SequenceHandler:
    """Serves the model names of sequencers.

    Parameters
    ----------
    sequences:
        By the model name that asks them.
    seed:
        Seeds stochastic sequencers, together with the request's id.
    """

    def __init__(self, *, sequences: Mapping[str, Sequence], seed: int) -> None:
        self.sequences = sequences
        self.seed = seed

    def find(self, model: str) -> Sequence | None:
        """Return the sequencer that a model name asks, if any."""
        return self.sequences.get(model)

    async def serve(self, sequence: Sequence, exchange: Exchange) -> None:
        """Serve a parsed request from its decision to its last byte; raises `ApiError`."""
        request, account = _in_chat(exchange), exchange.account
        _check(request, thinks=sequence.thinker is not None)
        allowed_usd = _allowed_usd(goal_of(exchange.headers, account.key, request.dial)[0])
        admission, hold = exchange.parts.admission, exchange.hold
        if admission is not None and hold is not None:
            most_usd = most_of_sequence(
                sequence, input_tokens=_input_tokens(request), output_tokens=_most_tokens(request, sequence)
            )
            bound_usd = sequence.bounds(allowed_usd).usd
            allowed_usd = await admission.afford_sequence(hold, bound_usd, most_usd=most_usd)
        bounds = sequence.bounds(allowed_usd)
        account.decide(None, chosen=sequence.name, reason=type(sequence.sequencer).__name__)
        trace_upstream, _ = onward(exchange)
        client = ProviderClient(
            request=request,
            places=sequence.places,
            decision_id=account.decision_id,
            headers=trace_upstream,
        )
        sender = AnswerSender(exchange, sequence)
        environment = _environment(sequence, client, request, sender)
        query = _query(request, account.decision_id, whole=sequence.thinker is not None)
        trace = start(environment, query, bounds=bounds, seed=self._seed_of(account.decision_id))
        try:
            with Attended(exchange.receive, exchange.scope):
                outcome = await carry_on_async(environment, sequence.sequencer, trace)
        finally:
            _account_for(trace, sequence, client, account)
        try:
            text = answer_of(trace, outcome.ended, sequence.name)
            await sender.finish(text, trace)
        except ApiError as error:
            await sender.cut(error)

    def _seed_of(self, decision_id: str) -> int:
        digest = hashlib.sha256(f"{self.seed}/{decision_id}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


def _in_chat(exchange: Exchange) -> ChatRequest:
    """Return the request in chat, which the pool is asked in; raises `ApiError` for what chat cannot say."""
    try:
        return exchange.protocol.to_chat(exchange.request)
    except Fault as fault:
        raise fault.error from fault


def _check(request: ChatRequest, *, thinks: bool) -> None:
    """Raise `ApiError` for what an answer of several calls cannot keep.

    Where a policy writes the answer, between tags of its own, neither a form nor a text that ends it can be.
    """
    refused = sorted(request.needs & (_REFUSED_BY_THINKERS if thinks else _REFUSED))
    if bytes(request.members.get("n", b"1")) not in (b"1", b"null"):
        refused.append("n")
    if thinks and bytes(request.members.get("stop", b"null")) != b"null":
        refused.append("stop")
    if refused:
        message = sentence(
            f"a sequencer cannot serve this request with {', '.join(refused)}",
            allowed="messages of text, and one answer",
            do="leave that out, or name a candidate as the model",
        )
        raise ApiError(400, message, code="not_supported", param="model")


def _allowed_usd(goal: Goal | None) -> float | None:
    """Return what the dial allows one request to cost in USD."""
    if goal is None:
        return None
    if goal.usd_per_1k is None:
        message = sentence(
            "a sequencer cannot serve this dial",
            allowed="x-turnout-usd-per-1k",
            do="bound the spend, or name the router's alias as the model",
        )
        raise ApiError(400, message, code="bad_goal", param="model")
    return goal.usd_per_1k / 1000


def _environment(
    sequence: Sequence, client: ProviderClient, request: ChatRequest, sender: AnswerSender
) -> LiveEnvironment:
    return LiveEnvironment(
        client=client,
        listen=sender.listen,
        candidates=sequence.pool,
        thinker=sequence.thinker,
        timeout_s=sequence.settings.call_s,
        max_output_tokens=_most_tokens(request, sequence),
        input_tokens=_input_tokens(request),
    )


def _input_tokens(request: ChatRequest) -> int:
    return -(-len(bytes(request.members["messages"])) // _BYTES_PER_TOKEN)


def _most_tokens(request: ChatRequest, sequence: Sequence) -> int:
    """Return the output tokens of a candidate without a budget: what the client allows, or the settings do.

    A policy's own questions are not the client's, so that a small limit of its answer does not bound these.
    """
    own = sequence.settings.max_output_tokens
    asked = max(1, most_output_tokens(request, None, own))
    return asked if sequence.thinker is None else max(asked, own)


def _query(request: ChatRequest, decision_id: str, *, whole: bool) -> Query:
    """Return what the sequencer sees: the last user message, or the whole conversation.

    A policy that writes its own sub-queries must know the conversation; a router was fitted on last messages.
    """
    query = request.query(decision_id)
    if not whole:
        return query
    said = msgspec.json.decode(request.members["messages"], type=list[_Said])
    if len(said) == 1:
        return query
    lines = [f"{one.role}: {_text(one.content)}" for one in said]
    return dataclasses.replace(query, text="\n".join(lines))


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part.text for part in content if part.text is not None)
    return content or ""


def _account_for(trace: Trace, sequence: Sequence, client: ProviderClient, account: Account) -> None:
    """Note what was spent, however the task ended; the account writes it when the request ends."""
    account.attempts = len(client.providers)
    account.provider = ", ".join(dict.fromkeys(client.providers)) or None
    account.is_replay = bool(client.providers) and client.is_replay
    account.spent = spent_by(trace, sequence.name, is_estimated=client.is_estimated)
    account.unknown_usd = trace.reserved_usd
    account.faults.extend(faults_of(trace))
    account.ledger.add(trace_row(trace, account.decision_id, sequence.name, keep_text=account.keep_text))
