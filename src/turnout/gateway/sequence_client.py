"""This module lets a sequencer's environment ask the gateway's own providers, and notes who was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.gateway.completion import Choice, parse_completion
from turnout.gateway.providers.base import Call, Chunks, Fault, Place, Provider
from turnout.gateway.sequence_hear import hear_chunks
from turnout.gateway.stream import UsageCount
from turnout.gateway.wire import ChatRequest, estimate_tokens, parse_chat, render
from turnout.sequential.live_client import Ask, Hear, Told, cut_short

_DROPPED = ("model", "stream", "stream_options", "n")


@final
class ProviderClient:
    """Asks providers on behalf of one request.

    Parameters
    ----------
    request:
        What the client of the gateway sent; a call that asks the question itself passes it on.
    places:
        Who serves whom, by candidate name.
    decision_id:
        Names the request.
    headers:
        What upstreams are told of the request's trace.
    """

    def __init__(
        self,
        *,
        request: ChatRequest,
        places: Mapping[str, Place],
        decision_id: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.request = request
        self.places = places
        self.decision_id = decision_id
        self.headers = headers
        self.providers: list[str] = []
        self.is_replay = True
        self.is_estimated = False

    async def ask(self, ask: Ask) -> Told:
        """Return what the model told; what an upstream refused is told as an error that cost nothing."""
        provider, model = self.places[ask.candidate.name]
        self.providers.append(provider.name)
        self.is_replay &= provider.is_replay
        request = self._request(ask)
        call = Call(
            request=request,
            candidate=_limited(ask, provider),
            model=model,
            decision_id=self.decision_id,
            headers=self.headers,
        )
        try:
            reply = await provider.ask(call)
        except Fault as fault:
            spent = None if fault.is_charge_unknown else 0
            return Told(error=fault.error.message, input_tokens=spent, output_tokens=spent)
        if reply.chunks is not None and ask.hear is not None:
            return await self._heard(reply.chunks, ask.hear, request)
        if reply.status != 200:
            said = reply.body[:120].decode("utf-8", "replace")
            error = f"the upstream {provider.name!r} refused with status {reply.status}: {said}"
            return Told(error=error, input_tokens=0, output_tokens=0)
        return self._told(reply.body, request)

    def _request(self, ask: Ask) -> ChatRequest:
        """Return the client's own request without what concerns its stream, or one of messages alone."""
        members: dict[str, msgspec.Raw | bytes] = {"model": b'"turnout"'}
        if ask.messages is None:
            kept = self.request.members.items()
            members.update({name: value for name, value in kept if name not in _DROPPED})
        else:
            members["messages"] = msgspec.json.encode([dict(message) for message in ask.messages])
        if ask.hear is not None:
            members["stream"] = b"true"
        if ask.stop:
            members["stop"] = msgspec.json.encode(list(ask.stop))
        return parse_chat(render(members))

    async def _heard(self, chunks: Chunks, hear: Hear, request: ChatRequest) -> Told:
        try:
            heard = await hear_chunks(chunks, hear)
        except Fault as fault:
            return Told(error=fault.error.message)
        told = self._priced(heard.text, heard.usage, request, heard.error)
        return dataclasses.replace(told, finish=cut_short(heard.finish))

    def _told(self, body: bytes, request: ChatRequest) -> Told:
        try:
            completion = parse_completion(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Told(error="the upstream's answer cannot be read")
        choice = completion.choices[0] if completion.choices else Choice()
        text = None if choice.message is None else choice.message.content
        error = "the upstream's answer holds no text" if text is None else None
        told = self._priced(text or "", completion.usage, request, error)
        return dataclasses.replace(told, finish=cut_short(choice.finish_reason))

    def _priced(
        self, text: str, reported: UsageCount | None, request: ChatRequest, error: str | None
    ) -> Told:
        usage = reported or UsageCount()
        # A prompt or a text that took no tokens is not believed: some servers fill in zeros.
        tokens_in, tokens_out = usage.prompt_tokens or None, usage.completion_tokens
        if tokens_out == 0 and text:
            tokens_out = None
        if tokens_in is None or tokens_out is None:
            self.is_estimated = True
            tokens_in = request.input_tokens if tokens_in is None else tokens_in
            tokens_out = estimate_tokens(len(text)) if tokens_out is None else tokens_out
        return Told(
            text=text,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cached_tokens=usage.cached_tokens or 0,
            error=error,
        )


def _limited(ask: Ask, provider: Provider) -> Candidate:
    """Return the candidate with the token budget of this call; a recording knows it by its own name only."""
    if provider.is_replay:
        return ask.candidate
    return dataclasses.replace(ask.candidate, max_output_tokens=ask.max_output_tokens)
