"""This module makes one call to one candidate, and gives its breaker a verdict."""

from __future__ import annotations

import asyncio
import logging
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.afford import most_output_tokens
from turnout.gateway.beside import beside, is_long
from turnout.gateway.breakers import Pass
from turnout.gateway.errors import ApiError
from turnout.gateway.exchange import Exchange
from turnout.gateway.onward import onward
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.providers.base import Call, Fault, Provider, Reply
from turnout.gateway.translate.events import unread_answer
from turnout.gateway.translate.refusal import unreadable
from turnout.gateway.wire import ChatRequest, is_given

logger = logging.getLogger(__name__)

CHAT = "chat"
"""The API that every provider speaks."""


@final
class Answer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A reply, and who gave it."""

    reply: Reply
    candidate: Candidate
    provider: Provider
    leave: Pass


async def ask_one(exchange: Exchange, candidate: Candidate, leave: Pass) -> Answer:
    """Return the answer of one candidate; raises `Fault`, which is noted in the account."""
    account = exchange.account
    provider, model = exchange.parts.places[candidate.name]
    account.attempts += 1
    account.provider, account.is_replay = provider.name, provider.is_replay
    trace, betas = onward(exchange)
    by_rules = () if exchange.ruling is None else exchange.ruling.request_headers
    call = Call(
        request=_spared(exchange, candidate),
        candidate=candidate,
        model=model,
        decision_id=account.decision_id,
        protocol=exchange.protocol.name,
        deadline_s=exchange.deadline_s,
        client_headers=exchange.headers,
        headers=(*trace, *by_rules) if trace else by_rules,
        betas=betas,
    )
    try:
        if call.protocol in provider.speaks:
            reply = await provider.ask(call)
        else:
            reply = await _ask_translated(exchange.protocol, provider, call)
    except Fault as fault:
        account.faults.append(f"{candidate.name}: {fault.error.code}")
        if fault.is_charge_unknown:
            account.unseen += (candidate,)
        leave.failed(fault)
        raise
    except asyncio.CancelledError:
        if is_given(call.request.members, "background"):
            # The upstream may go on with it, by a name that nobody was told.
            otherwise = exchange.parts.config.auth.reserve_output_tokens
            account.served = candidate
            account.output_estimate = most_output_tokens(call.request, candidate, otherwise)
        elif call.work.output_tokens is not None:
            # Nobody waits any more, but the prompt was read and tokens were written.
            account.served, account.output_estimate = candidate, call.work.output_tokens
        else:
            account.unseen += (candidate,)
        if asyncio.get_running_loop().time() >= exchange.deadline_s:
            account.faults.append(f"{candidate.name}: deadline_exceeded")
            leave.failed()
        leave.abandoned()
        raise
    except BaseException:
        leave.abandoned()
        raise
    return Answer(reply=reply, candidate=candidate, provider=provider, leave=leave)


async def _ask_translated(protocol: Protocol, provider: Provider, call: Call) -> Reply:
    """Ask in chat, which every provider speaks, and say the reply in the client's own API."""
    try:
        request = call.request
        if is_long(request.members):
            request = await beside(protocol.to_chat, request)
        else:
            request = protocol.to_chat(request)
    except (Fault, ApiError):
        raise
    except Exception as error:  # The edge: a field of a kind that nobody has thought of.
        logger.exception("a request could not be translated")
        raise unreadable("body", error) from error
    reply = await provider.ask(msgspec.structs.replace(call, request=request, protocol=CHAT))
    try:
        return protocol.from_chat(reply, call.request, provider.name)
    except Fault:
        raise
    except Exception as error:  # The edge: an answer of a kind that nobody has thought of.
        raise unread_answer(provider.name, error) from error


def _spared(exchange: Exchange, candidate: Candidate) -> ChatRequest:
    """Return the request without what the settings say that this candidate refuses."""
    own = exchange.parts.config.own_of(candidate.name)
    if own is None or not own.leave_out:
        return exchange.request
    members = {name: raw for name, raw in exchange.request.members.items() if name not in own.leave_out}
    return msgspec.structs.replace(exchange.request, members=members)


def take(exchange: Exchange, answer: Answer) -> Reply:
    """Make an answer the request's own: who served, and whose breaker hears how it ends."""
    account = exchange.account
    if account.served is not None:
        # Whoever counted along and was given up for this answer.
        account.unseen, account.output_estimate = (*account.unseen, account.served), None
    account.served = answer.candidate
    account.provider, account.is_replay = answer.provider.name, answer.provider.is_replay
    provider = answer.provider
    account.are_writes_listed = provider.lists_cache_writes
    account.are_reads_listed = provider.lists_cache_writes and provider.lists_cache_reads(
        exchange.parts.places[answer.candidate.name][1]
    )
    answer.leave.answered()
    exchange.leave = answer.leave
    return answer.reply
